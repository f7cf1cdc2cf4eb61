"""Vault's Transit engine, and the parts of its authentication that a client of
it needs.  What it says is what OpenBao's server says: test/kms/vault_test.py
asserts the same of both."""

import base64
import binascii
import re
import secrets

import stand_in
from web import Reply, Service

CONTEXT_NEEDED = ("missing 'context' for key derivation; the key was created using a derived key, which means "
                  'additional, per-request information must be included in order to perform operations with the key')


class Failed(Exception):
    """status, message"""


class Vault(Service):
    name = 'vault'

    def __init__(self, world):
        super().__init__(world)
        self.keys = {}                # name -> {versions: {n: material}, latest, min_decryption_version, ...}
        self.policies = {'root': None}
        self.tokens = {'root': {'policies': ['root'], 'expires': None, 'max': None, 'ttl': 0}}
        self.roles = {}               # approle: name -> {role_id, secret_ids, ttl, max_ttl, policies}
        self.jwts = {}                # kubernetes: role -> {jwt, ttl, max_ttl, policies}
        self.certificates = {}        # cert: name -> {common_name, ttl, max_ttl, policies}
        self.sealed = False

    def operation(self, request):
        """The part of the path that says what is done; "renew-self", "decrypt", "login"."""
        parts = request.path.strip('/').split('/')
        if parts[1:2] == ['auth']:
            return parts[-1] if 'login' not in parts else 'login', '/'.join(parts[2:])
        if parts[1:2] == ['sys']:
            return 'sys', '/'.join(parts[2:])
        return (parts[2] if len(parts) > 2 else ''), parts[-1]

    def failure(self, request, fault):
        if fault['fault'] == 'throttle':
            return self.errors(429, 'request path "transit/decrypt": rate limit quota exceeded')
        if fault['fault'] == 'unavailable':
            return self.errors(fault.get('status', 500), fault.get('message', 'internal error'))
        return self.errors(fault.get('status', 400), *([fault['message']] if fault.get('message') else []))

    def errors(self, status, *messages):
        return Reply(status, {'errors': list(messages)})

    def answer(self, request, data=None, **more):
        return Reply(200, {'request_id': request.id, 'lease_id': '', 'renewable': False, 'lease_duration': 0,
                           'data': data, 'wrap_info': None, 'warnings': None, 'auth': None, **more})

    def handle(self, request, admin=False):
        if self.sealed and request.path != '/v1/sys/health':
            return self.errors(503, 'Vault is sealed')
        try:
            return self.route(request)
        except Failed as e:
            return self.errors(*e.args)

    def route(self, request):
        path = request.path[4:] if request.path.startswith('/v1/') else ''
        body = request.json()
        if body is None:
            raise Failed(400, 'failed to parse JSON input')
        namespace = request.headers.get('x-vault-namespace', '').strip('/')
        request.note['namespace'] = namespace
        if path == 'sys/health':
            return Reply(503 if self.sealed else 200, {'initialized': True, 'sealed': self.sealed, 'standby': False})
        if path.startswith('auth/') and 'login' in path.split('/'):
            return self.login(request, path, body)
        token = self.holder(request)
        for pattern, method in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                if namespace != self.world.settings.get('namespace', ''):
                    raise Failed(404, 'no handler for route')
                self.authorise(token, path, request.method, match[1] if match.groups() else '')
                return method(self, request, body, *match.groups())
        raise Failed(404, f'no handler for route "{path}". route entry not found.')

    # --- tokens and policies -------------------------------------------------

    def holder(self, request):
        token = request.headers.get('x-vault-token', '')
        held = self.tokens.get(token)
        if held is None or (held['expires'] is not None and held['expires'] <= self.world.now()):
            raise Failed(403, 'permission denied')
        request.note['accessor'] = held.get('accessor')
        request.token = token
        return held

    def capabilities(self, held, path):
        found = set()
        for name in held['policies']:
            if name == 'root':
                return {'root'}
            if name == 'default':
                if path in ('auth/token/lookup-self',):
                    found.add('read')
                if path in ('auth/token/renew-self', 'auth/token/revoke-self', 'sys/capabilities-self'):
                    found.add('update')
            best = ''
            for pattern, allowed in (self.policies.get(name) or {}).items():
                plain = pattern.rstrip('*')
                if pattern == path or (pattern.endswith('*') and path.startswith(plain)):
                    if len(plain) >= len(best):
                        best, chosen = plain, allowed
            if best:
                found |= set(chosen)
        return {'deny'} if 'deny' in found else found

    def authorise(self, held, path, method, name):
        needed = {'GET': 'read', 'DELETE': 'delete', 'LIST': 'list'}.get(method, 'update')
        if needed == 'update' and path.startswith(('transit/encrypt/', 'transit/keys/')) and \
                path.count('/') == 2 and name not in self.keys:
            needed = 'create'
        found = self.capabilities(held, path)
        if 'root' not in found and needed not in found:
            raise Failed(403, '1 error occurred:\n\t* permission denied\n\n')

    def issue(self, policies, ttl, max_ttl, by_login=True):
        token = 's.' + secrets.token_urlsafe(24)
        now = self.world.now()
        self.tokens[token] = {'policies': ['default', *policies], 'accessor': secrets.token_hex(12), 'ttl': ttl,
                              'expires': now + ttl, 'max': now + max_ttl if max_ttl else None, 'by_login': by_login}
        return token

    def auth(self, request, token):
        held = self.tokens[token]
        left = max(0, round(held['expires'] - self.world.now())) if held['expires'] else 0
        return self.answer(request, None, auth={
            'client_token': token, 'accessor': held.get('accessor'), 'policies': held['policies'],
            'lease_duration': left, 'renewable': held['expires'] is not None, 'token_type': 'service'})

    def login(self, request, path, body):
        mount = path.split('/')[1]
        if mount == 'approle':
            for role in self.roles.values():
                if role['role_id'] == body.get('role_id'):
                    if body.get('secret_id') in role['secret_ids']:
                        return self.auth(request, self.issue(role['policies'], role['ttl'], role['max_ttl']))
                    raise Failed(400, 'invalid role or secret ID')
            raise Failed(400, 'invalid role or secret ID')
        if mount == 'kubernetes':
            role = self.jwts.get(body.get('role'))
            if role is None:
                raise Failed(400, f'invalid role name "{body.get("role")}"')
            if body.get('jwt') != role['jwt']:
                raise Failed(403, 'permission denied')
            return self.auth(request, self.issue(role['policies'], role['ttl'], role['max_ttl']))
        if mount == 'cert':
            certificate = request.client_certificate
            if not certificate:
                raise Failed(400, 'client certificate must be supplied')
            name = dict(pair[0] for pair in certificate['subject'])['commonName']
            for role in self.certificates.values():
                if role['common_name'] == name:
                    return self.auth(request, self.issue(role['policies'], role['ttl'], role['max_ttl']))
            raise Failed(400, 'invalid certificate or no client certificate supplied')
        raise Failed(403, 'permission denied')

    def lookup_self(self, request, body):
        held = self.tokens[request.token]
        left = max(0, round(held['expires'] - self.world.now())) if held['expires'] else 0
        return self.answer(request, {'id': request.token, 'policies': held['policies'], 'ttl': left,
                                     'renewable': held['expires'] is not None, 'accessor': held.get('accessor')})

    def renew_self(self, request, body):
        held = self.tokens[request.token]
        if held['expires'] is None:
            raise Failed(400, 'lease is not renewable')
        held['expires'] = self.world.now() + held['ttl']
        if held['max']:
            held['expires'] = min(held['expires'], held['max'])
        return self.auth(request, request.token)

    def revoke_self(self, request, body):
        del self.tokens[request.token]
        return Reply(204)

    def revoke_accessor(self, request, body):
        self.tokens = {t: h for t, h in self.tokens.items() if h.get('accessor') != body.get('accessor')}
        return Reply(204)

    def capabilities_self(self, request, body):
        held = self.tokens[request.token]
        found = {path: sorted(self.capabilities(held, path)) or ['deny']
                 for path in body.get('paths', [body.get('path')])}
        return self.answer(request, found, **found)

    def policy(self, request, body, name):
        if request.method == 'DELETE':
            self.policies.pop(name, None)
        else:
            self.policies[name] = {
                path: re.findall(r'"([^"]+)"', capabilities) for path, capabilities in re.findall(
                    r'path\s+"([^"]+)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}', body.get('policy', ''))}
        return Reply(204)

    def create_token(self, request, body):
        ttl = seconds(body.get('ttl', '768h'))
        return self.auth(request, self.issue(body.get('policies', []), ttl, seconds(body.get('explicit_max_ttl', 0)),
                                             by_login=False))

    def approle(self, request, body, name, rest):
        if rest == '':
            self.roles[name] = {'role_id': secrets.token_hex(16), 'secret_ids': set(),
                                'ttl': seconds(body.get('token_ttl', '768h')),
                                'max_ttl': seconds(body.get('token_max_ttl', 0)),
                                'policies': body.get('token_policies', [])}
            return Reply(204)
        if name not in self.roles:
            raise Failed(404, '')
        if rest == '/role-id':
            return self.answer(request, {'role_id': self.roles[name]['role_id']})
        secret = secrets.token_hex(16)
        self.roles[name]['secret_ids'].add(secret)
        return self.answer(request, {'secret_id': secret})

    # --- transit -------------------------------------------------------------

    def key(self, name):
        if name not in self.keys:
            raise Failed(400, 'encryption key not found')
        if self.keys[name]['soft_deleted']:
            raise Failed(400, 'refusing to use soft-deleted key')
        return self.keys[name]

    def manage(self, request, body, name):
        if request.method == 'GET':
            if name not in self.keys:
                raise Failed(404, '')
        elif request.method == 'DELETE':
            if name not in self.keys:
                raise Failed(400, f'error deleting policy {name}: could not delete key; not found')
            if not self.keys[name]['deletion_allowed']:
                raise Failed(400, f'error deleting policy {name}: deletion is not allowed for this key')
            del self.keys[name]
            return Reply(204)
        elif name not in self.keys:
            self.create(name, bool(body.get('derived')))
        key = self.keys[name]
        return self.answer(request, {'name': name, 'type': 'aes256-gcm96', 'derived': key['derived'],
                                     'latest_version': key['latest'], 'soft_deleted': key['soft_deleted'],
                                     'min_decryption_version': key['minimum'], 'min_encryption_version': 0,
                                     'deletion_allowed': key['deletion_allowed'], 'exportable': False,
                                     'keys': {str(n): 1700000000 for n in key['versions']}})

    def create(self, name, derived):
        self.keys[name] = {'versions': {1: secrets.token_bytes(32)}, 'latest': 1, 'minimum': 1, 'derived': derived,
                           'deletion_allowed': False, 'soft_deleted': False}

    def configure(self, request, body, name):
        key = self.key(name)
        key['minimum'] = body.get('min_decryption_version', key['minimum'])
        key['deletion_allowed'] = body.get('deletion_allowed', key['deletion_allowed'])
        return Reply(204)

    def rotate(self, request, body, name):
        key = self.key(name)
        key['latest'] += 1
        key['versions'][key['latest']] = secrets.token_bytes(32)
        return Reply(204)

    def soft_delete(self, request, body, name):
        self.keys[name]['soft_deleted'] = True
        return Reply(204)

    def soft_restore(self, request, body, name):
        self.keys[name]['soft_deleted'] = False
        return Reply(204)

    def context(self, key, item):
        try:
            context = base64.b64decode(item.get('context', ''), validate=True)
        except binascii.Error:
            raise Failed(400, 'failed to base64-decode context')
        if key['derived'] and not context:
            raise Failed(400, CONTEXT_NEEDED)
        return context if key['derived'] else b''

    def seal(self, key, plaintext, context):
        wrapped = stand_in.wrap(key['versions'][key['latest']], plaintext, context)
        return f'vault:v{key["latest"]}:{base64.b64encode(wrapped).decode()}'

    def open(self, key, item):
        match = re.fullmatch(r'vault:v(\d+):(.*)', item.get('ciphertext', ''))
        if not match:
            raise Failed(400, 'invalid ciphertext: no prefix')
        context = self.context(key, item)
        if int(match[1]) > key['latest']:
            raise Failed(400, 'invalid ciphertext: version is too new')
        if int(match[1]) < key['minimum']:
            raise Failed(400, 'ciphertext or signature version is disallowed by policy (too old)')
        try:
            wrapped = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise Failed(400, 'invalid ciphertext: could not decode base64')
        plaintext = stand_in.unwrap(key['versions'][int(match[1])], wrapped, context)
        if plaintext is None:
            raise Failed(400, 'cipher: message authentication failed')
        return plaintext

    def encrypt_one(self, key, item):
        try:
            plaintext = base64.b64decode(item.get('plaintext', ''), validate=True)
        except binascii.Error:
            raise Failed(400, 'failed to base64-decode plaintext')
        return {'ciphertext': self.seal(key, plaintext, self.context(key, item)), 'key_version': key['latest']}

    def decrypt_one(self, key, item):
        return {'plaintext': base64.b64encode(self.open(key, item)).decode()}

    def rewrap_one(self, key, item):
        plaintext = self.open(key, item)
        return {'ciphertext': self.seal(key, plaintext, self.context(key, item)), 'key_version': key['latest']}

    def one_or_many(self, request, body, name, act):
        """One item, or a batch whose reply keeps its order and is a failure when
        one item is."""
        if 'batch_input' not in body:
            return self.answer(request, act(self.key(name), body))
        request.note['items'] = len(body['batch_input'])
        results, failed = [], False
        key = self.key(name)
        for item in body['batch_input']:
            try:
                results.append(act(key, item))
            except Failed as e:
                failed = True
                results.append({'error': e.args[1]})
        reply = self.answer(request, {'batch_results': results})
        reply.status = 400 if failed else 200
        return reply

    def encrypt(self, request, body, name):
        if name not in self.keys:
            self.create(name, 'context' in body)
        return self.one_or_many(request, body, name, self.encrypt_one)

    def decrypt(self, request, body, name):
        return self.one_or_many(request, body, name, self.decrypt_one)

    def rewrap(self, request, body, name):
        return self.one_or_many(request, body, name, self.rewrap_one)

    def datakey(self, request, body, name):
        key = self.key(name)
        dek = secrets.token_bytes(body.get('bits', 256) // 8)
        return self.answer(request, {'ciphertext': self.seal(key, dek, self.context(key, body)),
                                     'plaintext': base64.b64encode(dek).decode(), 'key_version': key['latest']})

    ROUTES = [
        (r'transit/encrypt/([^/]+)', encrypt),
        (r'transit/decrypt/([^/]+)', decrypt),
        (r'transit/rewrap/([^/]+)', rewrap),
        (r'transit/datakey/plaintext/([^/]+)', datakey),
        (r'transit/keys/([^/]+)', manage),
        (r'transit/keys/([^/]+)/config', configure),
        (r'transit/keys/([^/]+)/rotate', rotate),
        (r'transit/keys/([^/]+)/soft-delete', soft_delete),
        (r'transit/keys/([^/]+)/soft-delete-restore', soft_restore),
        (r'auth/token/lookup-self', lookup_self),
        (r'auth/token/renew-self', renew_self),
        (r'auth/token/revoke-self', revoke_self),
        (r'auth/token/revoke-accessor', revoke_accessor),
        (r'auth/token/create', create_token),
        (r'auth/approle/role/([^/]+)((?:/role-id|/secret-id)?)', approle),
        (r'sys/capabilities-self', capabilities_self),
        (r'sys/polic(?:y|ies/acl)/([^/]+)', policy),
    ]


def seconds(value):
    """Of a duration as Vault takes them: 5, "5s", "15m", "768h"."""
    text = str(value)
    unit = {'s': 1, 'm': 60, 'h': 3600}.get(text[-1:])
    return int(text[:-1]) * unit if unit else int(text or 0)
