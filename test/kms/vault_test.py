"""What a client of Vault's Transit engine relies on, asserted of OpenBao's
server and of the fault server's Vault alike.

    python vault_test.py FOLDER BAO     BAO: the program
"""

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import time

from tap import FaultServer, ok, same
import tap


def encoded(data):
    return base64.b64encode(data).decode()


class Server:
    """One of the two, by its API."""

    def __init__(self, port):
        self.port = port

    def call(self, method, path, body=None, token='root'):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
        connection.request(method, '/v1/' + path, json.dumps(body) if body is not None else None,
                           {'X-Vault-Token': token, 'X-Vault-Request': 'true'} if token else {})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text) if text else {}

    def data(self, method, path, body=None, token='root'):
        return self.call(method, path, body, token)[1].get('data')

    def failure(self, method, path, body=None, token='root'):
        """(status, errors)"""
        status, reply = self.call(method, path, body, token)
        return status, ' '.join(reply.get('errors', []))


def assertions(server, name):
    def check(condition, what, detail=None):
        ok(condition, f'{name}: {what}', detail)

    def refused(status, part, what, *call, **more):
        got = server.failure(*call, **more)
        check(got[0] == status and part in got[1], what, got)

    context, other = encoded(b'envelope:t1:42'), encoded(b'envelope:t2:42')
    check(server.call('GET', 'sys/health', token=None)[0] == 200, 'is well')
    server.call('POST', 'transit/keys/platform', {'derived': True})
    server.call('POST', 'transit/keys/plain', {})
    check(server.data('GET', 'transit/keys/platform')['derived'] is True, 'a key is described')

    # Use
    made = server.data('POST', 'transit/datakey/plaintext/platform', {'bits': 256, 'context': context})
    check(len(base64.b64decode(made['plaintext'])) == 32 and made['ciphertext'].startswith('vault:v1:'), 'a data key')
    decrypt = ('POST', 'transit/decrypt/platform')
    good = {'ciphertext': made['ciphertext'], 'context': context}
    check(server.data(*decrypt, good) == {'plaintext': made['plaintext']}, 'is decrypted')
    wrapped = server.data('POST', 'transit/encrypt/platform', {'plaintext': made['plaintext'], 'context': context})
    check(server.data(*decrypt, {'ciphertext': wrapped['ciphertext'], 'context': context})['plaintext'] ==
          made['plaintext'], 'what was encrypted is decrypted')
    server.call('POST', 'transit/keys/platform/rotate', {})
    moved = server.data('POST', 'transit/rewrap/platform', good)
    check(moved['ciphertext'].startswith('vault:v2:'), 're-wrapped, it is under the newest version')
    check(server.data(*decrypt, {'ciphertext': moved['ciphertext'], 'context': context})['plaintext'] ==
          made['plaintext'], 'and holds the same')
    plain = server.data('POST', 'transit/datakey/plaintext/plain', {'bits': 256})
    check(server.data('POST', 'transit/decrypt/plain', {'ciphertext': plain['ciphertext'], 'context': context}) ==
          {'plaintext': plain['plaintext']}, 'a key that is not derived takes no notice of a context')

    # Refusals
    refused(400, 'message authentication failed', 'another context', *decrypt, {**good, 'context': other})
    refused(400, 'context', 'no context', *decrypt, {'ciphertext': made['ciphertext']})
    refused(400, 'message authentication failed', 'another key', 'POST', 'transit/decrypt/plain',
            {'ciphertext': made['ciphertext']})
    refused(400, 'invalid ciphertext', 'no ciphertext', *decrypt, {**good, 'ciphertext': 'junk'})
    refused(400, 'version is too new', 'a version that there is not', *decrypt, {**good, 'ciphertext': 'vault:v9:AAAA'})
    refused(400, 'encryption key not found', 'no such key', 'POST', 'transit/decrypt/none', good)
    refused(400, 'encryption key not found', 'no such key for a data key', 'POST', 'transit/datakey/plaintext/none',
            {'bits': 256, 'context': context})
    check(server.call('GET', 'transit/keys/none')[0] == 404, 'and none is made')
    refused(404, '', 'no such engine', 'POST', 'elsewhere/decrypt/platform', good)
    server.call('POST', 'transit/keys/platform/config', {'min_decryption_version': 2})
    refused(400, 'disallowed by policy (too old)', 'a version that is too old', *decrypt, good)
    server.call('POST', 'transit/keys/platform/config', {'min_decryption_version': 1})
    check(server.call(*decrypt, good)[0] == 200, 'and is not any more')

    # Batches
    items = [good, {'ciphertext': moved['ciphertext'], 'context': context}]
    status, reply = server.call(*decrypt, {'batch_input': items})
    check(status == 200 and [r['plaintext'] for r in reply['data']['batch_results']] == [made['plaintext']] * 2, 'a batch')
    status, reply = server.call(*decrypt, {'batch_input': [items[0], {**good, 'context': other}, items[1]]})
    results = (reply.get('data') or {}).get('batch_results', [{}] * 3)
    check(status == 400 and results[0].get('plaintext') == results[2].get('plaintext') == made['plaintext'] and
          'authentication failed' in results[1].get('error', ''), 'one bad item makes a 400 that has the results', reply)
    status, reply = server.call('POST', 'transit/rewrap/platform', {'batch_input': items})
    check(all(r['ciphertext'].startswith('vault:v2:') for r in reply['data']['batch_results']), 'a batch to re-wrap')

    # Deletion
    refused(400, 'deletion is not allowed', 'keys are not deleted by accident', 'DELETE', 'transit/keys/plain')
    server.call('POST', 'transit/keys/plain/config', {'deletion_allowed': True})
    server.call('DELETE', 'transit/keys/plain/soft-delete')
    refused(400, 'refusing to use soft-deleted key', 'soft-deleted', 'POST', 'transit/decrypt/plain',
            {'ciphertext': plain['ciphertext']})
    server.call('POST', 'transit/keys/plain/soft-delete-restore', {})
    check(server.call('POST', 'transit/decrypt/plain', {'ciphertext': plain['ciphertext']})[0] == 200, 'and restored')
    server.call('DELETE', 'transit/keys/plain')
    refused(400, 'encryption key not found', 'deleted', 'POST', 'transit/decrypt/plain', {'ciphertext': plain['ciphertext']})

    # Policies
    rules = '\n'.join(f'path "{path}" {{ capabilities = ["update"] }}' for path in (
        'transit/datakey/plaintext/platform', 'transit/decrypt/platform'))
    server.call('PUT', 'sys/policies/acl/envelope', {'policy': rules})
    server.call('PUT', 'sys/policies/acl/careless', {
        'policy': 'path "transit/*" { capabilities = ["create", "update", "delete"] }'})
    token = server.call('POST', 'auth/token/create', {'policies': ['envelope'], 'ttl': '5m'})[1]['auth']['client_token']
    check(server.call(*decrypt, good, token=token)[0] == 200, 'a policy lets decrypt')
    refused(403, 'permission denied', 'and nothing else', 'POST', 'transit/rewrap/platform', good, token=token)
    refused(403, 'permission denied', 'nor on another key', 'POST', 'transit/decrypt/other', good, token=token)
    refused(403, 'permission denied', 'a token that is none', *decrypt, good, token='none')
    held = server.data('POST', 'sys/capabilities-self', {'paths': ['transit/keys/platform', 'transit/decrypt/platform']},
                       token=token)
    check(held['transit/keys/platform'] == ['deny'] and held['transit/decrypt/platform'] == ['update'],
          'a token knows what it may do', held)
    careless = server.call('POST', 'auth/token/create', {'policies': ['careless'], 'ttl': '5m'})[1]['auth']['client_token']
    held = server.data('POST', 'sys/capabilities-self', {'paths': ['transit/keys/platform']}, token=careless)
    check('delete' in held['transit/keys/platform'], 'or too much', held)
    check(server.call('POST', 'transit/encrypt/typo', {'plaintext': encoded(b'x')}, token=careless)[0] == 200 and
          server.call('GET', 'transit/keys/typo')[0] == 200, 'with create, encrypt makes a key')

    # AppRole, and tokens that end
    server.call('POST', 'sys/auth/approle', {'type': 'approle'})
    server.call('POST', 'auth/approle/role/envelope', {'token_policies': ['envelope'], 'token_ttl': '2s',
                                                       'token_max_ttl': '3s'})
    role = server.data('GET', 'auth/approle/role/envelope/role-id')['role_id']
    secret = server.data('POST', 'auth/approle/role/envelope/secret-id', {})['secret_id']
    login = ('POST', 'auth/approle/login', {'role_id': role, 'secret_id': secret})
    auth = server.call(*login, token=None)[1]['auth']
    token = auth['client_token']
    check(auth['lease_duration'] == 2 and auth['renewable'], 'AppRole gives a token', auth)
    check(server.call(*decrypt, good, token=token)[0] == 200, 'that works')
    check(0 < server.data('GET', 'auth/token/lookup-self', token=token)['ttl'] <= 2, 'and knows its life')
    time.sleep(1.5)
    auth = server.call('POST', 'auth/token/renew-self', {}, token=token)[1]['auth']
    check(auth['lease_duration'] <= 2 and auth['client_token'] == token, 'renewed, not past its maximum', auth)
    time.sleep(2.2)
    refused(403, 'permission denied', 'then it is dead', *decrypt, good, token=token)
    check(server.failure('GET', 'auth/token/lookup-self', token=token)[0] == 403, 'and lookup-self says so')
    token = server.call(*login, token=None)[1]['auth']['client_token']
    server.call('POST', 'auth/token/revoke-self', {}, token=token)
    refused(403, 'permission denied', 'revoked', *decrypt, good, token=token)
    refused(400, 'invalid role or secret ID', 'a wrong secret id', 'POST', 'auth/approle/login',
            {'role_id': role, 'secret_id': 'none'}, token=None)


def free_port():
    """One whose neighbour is free as well: OpenBao listens on both."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(('127.0.0.1', 0))
            try:
                two.bind(('127.0.0.1', one.getsockname()[1] + 1))
            except OSError:
                continue
            return one.getsockname()[1]


def start_bao(program, folder):
    """(process, Server), with Transit.  Somebody may take its port before it does."""
    for _ in range(10):
        port = free_port()
        with open(os.path.join(folder, 'bao.log'), 'w', encoding='utf-8') as log:
            process = subprocess.Popen([program, 'server', '-dev', '-dev-no-store-token', '-dev-root-token-id=root',
                                        f'-dev-listen-address=127.0.0.1:{port}'], stdout=log, stderr=log,
                                       env={'PATH': os.environ['PATH'], 'HOME': folder})
        server = Server(port)
        while process.poll() is None:
            try:
                if server.call('POST', 'sys/mounts/transit', {'type': 'transit'})[0] == 204:
                    return process, server
            except (OSError, ValueError, http.client.HTTPException):
                pass
            time.sleep(0.1)
    raise SystemExit('OpenBao does not start')


def main(folder, program):
    fault_server = FaultServer(folder)
    bao, real = start_bao(program, folder)
    try:
        assertions(real, 'OpenBao')
    finally:
        bao.terminate()
        bao.wait()
    mine = Server(fault_server.ports['vault']['http'])
    assertions(mine, 'fault server')

    # What cannot be ordered of a real one
    good = {'bits': 256, 'context': encoded(b'c')}
    made = mine.data('POST', 'transit/datakey/plaintext/platform', good)
    decrypt = ('POST', 'transit/decrypt/platform', {'ciphertext': made['ciphertext'], 'context': encoded(b'c')})
    for fault, status in (('throttle', 429), ('unavailable', 500), ('html403', 403), ('redirect', 302)):
        fault_server.fault(service='vault', operation='decrypt', fault=fault, count=1)
        connection = http.client.HTTPConnection('127.0.0.1', mine.port)
        connection.request(decrypt[0], '/v1/' + decrypt[1], json.dumps(decrypt[2]), {'X-Vault-Token': 'root'})
        same(connection.getresponse().status, status, f'fault server: {fault}')
        connection.close()
    fault_server.fault(service='vault', operation='decrypt', fault='wrong_dek', count=1)
    ok(mine.data(*decrypt)['plaintext'] != made['plaintext'], 'fault server: another key than was asked for')
    same(mine.data(*decrypt)['plaintext'], made['plaintext'], 'fault server: once')
    fault_server.control('POST', '/set', {'service': 'vault', 'attribute': 'sealed', 'value': True})
    same(mine.failure(*decrypt), (503, 'Vault is sealed'), 'fault server: sealed')
    print(f'1..{tap.count}')


if __name__ == '__main__':
    main(*sys.argv[1:3])
