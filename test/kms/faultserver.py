"""A stand-in for the KMSs and what gives credentials for them, with faults on demand.

    python3 faultserver.py FOLDER

Prints one line of JSON: {"control": PORT, "kms": {"http": PORT, "https": PORT},
"sts": ..., "imds": ..., "container": ..., "gcp": ..., "gcptoken": ...,
"gcpmeta": ..., "vault": ..., "proxy": ...}, then serves on 127.0.0.1 until its parent ends.
FOLDER gets the certificates (certificates.py) and service_account.json.

The control port, plain HTTP, JSON bodies:

    POST   /faults      a rule (web.py, Faults), or a list of them
    DELETE /faults      none any more
    GET    /calls       {"kms Decrypt": 12, ...}
    GET    /connections {"kms": 3, ...}: how many were accepted
    GET    /log         what was asked, oldest first
    POST   /reset       counters and log to nothing
    POST   /listen      {"service", "state": "open" | "refuse" | "blackhole"}
    POST   /certificate {"name": "good" | "expired" | "wrong_name" | "other_ca"}
    POST   /clock       {"offset": SECONDS}: the services' clock is ahead so much
    POST   /settings    credential_seconds, container_token, epoch_expiry, namespace
    POST   /set         {"service", "attribute", "value"}: e.g. roles of sts
    POST   /principal   {"access_key", "secret", "arn", and "token", "expires" (epoch)}
    POST   /policy      {"arn", "statements"}, or {"member", "permissions"}; without the second: anything
    POST   /revoke      {"access_key"} or {"token"} or nothing: all that were given for a login die
    POST   /admin/kms/OPERATION, /admin/gcp/v1/... with any method: as the service's owner, unsigned
"""

import asyncio
import ctypes
import json
import os
import signal
import ssl
import sys

import aws
import aws_identity
import certificates
import gcp
import gcp_identity
import proxy
import vault
from web import Listener, Reply, Request, Service, World


class Control(Service):
    name = 'control'

    def __init__(self, world, listeners, contexts):
        super().__init__(world)
        self.listeners = listeners
        self.contexts = contexts
        self.services = {name: listener.service for name, listener in listeners.items()}

    def operation(self, request):
        return 'control', ''

    def handle(self, request, admin=False):
        world, parts = self.world, request.path.strip('/').split('/')
        if parts[0] == 'admin':
            return self.administer(request, parts)
        body = json.loads(request.body or b'{}')
        if parts[0] == 'faults':
            if request.method == 'DELETE':
                world.faults.clear()
            for rule in body if isinstance(body, list) else [body] if body else []:
                world.faults.add(rule)
        elif parts[0] == 'calls':
            return Reply(200, world.calls)
        elif parts[0] == 'connections':
            return Reply(200, {name: listener.accepted for name, listener in self.listeners.items()})
        elif parts[0] == 'log':
            return Reply(200, [entry for entry in world.log if entry['service'] != 'control'])
        elif parts[0] == 'reset':
            world.calls.clear()
            world.log.clear()
        elif parts[0] == 'listen':
            # After the reply, for a listener must not close under itself.
            return asyncio.ensure_future(self.listen(body))
        elif parts[0] == 'certificate':
            self.contexts['now'] = self.contexts[body['name']]
        elif parts[0] == 'clock':
            world.clock = body['offset']
        elif parts[0] == 'settings':
            world.settings.update(body)
        elif parts[0] == 'set':
            setattr(self.services[body['service']], body['attribute'], body['value'])
        elif parts[0] == 'principal':
            self.services['kms'].principals.add(body['access_key'], body['secret'], body['arn'], body.get('token'),
                                                body.get('expires'))
        elif parts[0] == 'policy':
            self.set_policy(body)
        elif parts[0] == 'revoke':
            self.revoke(body)
        else:
            return Reply(404, {'error': 'no such command'})
        return Reply(200, {})

    async def listen(self, body):
        await self.listeners[body['service']].set_state(body['state'])
        return Reply(200, {})

    def administer(self, request, parts):
        if parts[1] == 'kms':
            request.headers['x-amz-target'] = 'TrentService.' + parts[2]
        inner = Request(request.method, request.target[len('/admin/' + parts[1]):], request.headers, request.body, None)
        return self.services[parts[1]].handle(inner, admin=True)

    def set_policy(self, body):
        if 'arn' in body:
            held, name, value = self.services['kms'].principals.policies, body['arn'], body.get('statements')
        else:
            held, name, value = self.services['gcp'].tokens.permissions, body['member'], body.get('permissions')
        held.pop(name, None)
        if value is not None:
            held[name] = value

    def revoke(self, body):
        keys = self.services['kms'].principals.keys
        tokens = self.services['gcp'].tokens.tokens
        held = self.services['vault'].tokens
        for name in [n for n in keys if n.startswith('ASIA') and body.get('access_key') in (None, n)]:
            keys[name]['expires'] = 1
        for name in [n for n in tokens if body.get('token') in (None, n)]:
            del tokens[name]
        for name in [n for n in held if held[n].get('by_login') and body.get('token') in (None, n)]:
            del held[name]


def tls_contexts(folder):
    contexts = {}
    for name, path in certificates.make(folder).items():
        if name == 'client':
            continue
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.load_verify_locations(os.path.join(folder, 'ca.pem'))
        context.verify_mode = ssl.CERT_OPTIONAL
        contexts[name] = context
    contexts['now'] = contexts['good']

    def choose(connection, name, context):
        connection.context = contexts['now']
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.load_cert_chain(os.path.join(folder, 'server.pem'))
    front.load_verify_locations(os.path.join(folder, 'ca.pem'))
    front.verify_mode = ssl.CERT_OPTIONAL
    front.sni_callback = choose
    front.num_tickets = 0             # a ticket would bring back another certificate
    return front, contexts


async def main(folder):
    os.makedirs(folder, exist_ok=True)
    front, contexts = tls_contexts(folder)
    world = World()
    principals, tokens = aws.Principals(), gcp.Tokens(world)
    services = [
        aws.Kms(world, principals), aws_identity.Sts(world, principals),
        aws_identity.InstanceMetadata(world, principals), aws_identity.Container(world, principals),
        gcp.Gcp(world, tokens), gcp_identity.MetadataServer(world, tokens), vault.Vault(world),
        gcp_identity.TokenEndpoint(world, tokens, None), proxy.Proxy(world),
    ]
    listeners = {service.name: Listener(world, service, front) for service in services}
    for listener in listeners.values():
        await listener.open()
    port = listeners['gcptoken'].sockets['https']
    listeners['gcptoken'].service.account = certificates.service_account(folder, f'https://127.0.0.1:{port}/token')
    control = Listener(world, Control(world, listeners, contexts))
    await control.open()
    print(json.dumps({'control': control.sockets['http'],
                      **{name: listener.sockets for name, listener in listeners.items()}}), flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


if __name__ == '__main__':
    # The kernel tells when the parent ends, even if it is killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    asyncio.run(main(sys.argv[1]))
