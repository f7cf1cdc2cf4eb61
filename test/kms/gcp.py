"""GCP Cloud KMS over REST: encrypt and decrypt, key versions with their states,
IAM permissions, and the sums that requests and replies carry."""

import base64
import binascii
import re
import secrets

import stand_in
from crc32c import crc32c
from web import Reply, Service

STATUS = {'INVALID_ARGUMENT': 400, 'FAILED_PRECONDITION': 400, 'UNAUTHENTICATED': 401, 'PERMISSION_DENIED': 403,
          'NOT_FOUND': 404, 'ALREADY_EXISTS': 409, 'RESOURCE_EXHAUSTED': 429, 'INTERNAL': 500, 'UNAVAILABLE': 503,
          'DEADLINE_EXCEEDED': 504}

KEY = r'projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/:]+'

# What roles/cloudkms.cryptoKeyEncrypterDecrypter permits on a key.
ENCRYPTER_DECRYPTER = ('cloudkms.cryptoKeyVersions.useToEncrypt', 'cloudkms.cryptoKeyVersions.useToDecrypt')


class Failed(Exception):
    """status, message, details"""


def error(status, message, details=()):
    return Reply(STATUS[status], {'error': {'code': STATUS[status], 'message': message, 'status': status,
                                            **({'details': list(details)} if details else {})}},
                 content_type='application/json; charset=UTF-8')


class Tokens:
    """Access tokens that were given, and what their holders may do."""

    def __init__(self, world):
        self.world = world
        self.tokens = {}              # token -> (member, time of expiry)
        self.permissions = {}         # member -> permissions; absent: all

    def issue(self, member, seconds):
        token = 'ya29.' + secrets.token_urlsafe(64)
        self.tokens[token] = (member, self.world.now() + seconds)
        return token

    def holder(self, request):
        """The member; None where the token is none or has died."""
        header = request.headers.get('authorization', '')
        member, expires = self.tokens.get(header[7:], (None, 0)) if header.startswith('Bearer ') else (None, 0)
        return member if expires > self.world.now() else None

    def permitted(self, member, permission):
        permissions = self.permissions.get(member)
        return permissions is None or permission in permissions


class Gcp(Service):
    name = 'gcp'

    def __init__(self, world, tokens):
        super().__init__(world)
        self.tokens = tokens
        self.keys = {}                # name -> {'versions': {n: {state, material}}, 'primary': n}

    def operation(self, request):
        match = re.fullmatch(f'/v1/({KEY})(?:/cryptoKeyVersions(?:/\\d+)?)?(?::(\\w+))?', request.path)
        if match:
            return match[2] or request.method, match[1]
        return request.method, request.path

    def failure(self, request, fault):
        if fault['fault'] == 'throttle':
            return error('RESOURCE_EXHAUSTED', "Quota exceeded for quota metric 'Cryptographic requests' and limit "
                         "'Cryptographic requests per minute' of service 'cloudkms.googleapis.com'.")
        if fault['fault'] == 'unavailable':
            return error(fault.get('code', 'UNAVAILABLE'), 'The service is currently unavailable.')
        return error(fault['code'], fault.get('message', ''))

    def handle(self, request, admin=False):
        operation, name = self.operation(request)
        try:
            member = None
            if not admin:
                member = self.tokens.holder(request)
                if member is None:
                    raise Failed('UNAUTHENTICATED', 'Request had invalid authentication credentials. Expected OAuth 2 '
                                 'access token, login cookie or other valid authentication credential.')
                request.note['principal'] = member
            body = request.json()
            if body is None:
                raise Failed('INVALID_ARGUMENT', 'Invalid JSON payload received.')
            request.note['aad'] = body.get('additionalAuthenticatedData')
            return Reply(200, self.act(request, operation, name, body, member),
                         content_type='application/json; charset=UTF-8')
        except Failed as e:
            return error(*e.args)
        except (binascii.Error, ValueError, TypeError) as e:
            return error('INVALID_ARGUMENT', f'Invalid value: {e}')

    def act(self, request, operation, name, body, member):
        if request.method == 'POST' and request.path.endswith('/cryptoKeys'):
            return self.create(request, body)
        if name not in self.keys:
            self.require(member, 'cloudkms.cryptoKeys.get', name)
            raise Failed('NOT_FOUND', f'CryptoKey {name} not found.')
        version = re.search(r'/cryptoKeyVersions/(\d+)', request.path)
        methods = {'encrypt': self.encrypt, 'decrypt': self.decrypt, 'GET': self.describe, 'PATCH': self.patch,
                   'destroy': self.destroy, 'restore': self.restore, 'POST': self.new_version,
                   'testIamPermissions': self.test_permissions, 'updatePrimaryVersion': self.set_primary}
        if operation not in methods:
            raise Failed('NOT_FOUND', 'Method not found.')
        return methods[operation](name, version and version[1], body, member)

    def require(self, member, permission, name):
        if member is not None and not self.tokens.permitted(member, permission):
            raise Failed('PERMISSION_DENIED', f"Permission '{permission}' denied on resource '{name}' (or it may not "
                         'exist).', [{'@type': 'type.googleapis.com/google.rpc.ErrorInfo',
                                      'reason': 'IAM_PERMISSION_DENIED', 'domain': 'cloudkms.googleapis.com',
                                      'metadata': {'permission': permission, 'resource': name}}])

    def create(self, request, body):
        name = f'{request.path[4:]}/{request.parameters()["cryptoKeyId"]}'
        self.keys[name] = {'versions': {}, 'primary': '1'}
        self.add_version(name)
        return self.shown(name)

    def add_version(self, name):
        number = str(len(self.keys[name]['versions']) + 1)
        self.keys[name]['versions'][number] = {'state': 'ENABLED', 'material': secrets.token_bytes(32)}
        return number

    def shown(self, name):
        primary = self.keys[name]['primary']
        return {'name': name, 'purpose': 'ENCRYPT_DECRYPT', 'primary': self.shown_version(name, primary)}

    def shown_version(self, name, number):
        return {'name': f'{name}/cryptoKeyVersions/{number}', 'state': self.keys[name]['versions'][number]['state'],
                'protectionLevel': 'SOFTWARE', 'algorithm': 'GOOGLE_SYMMETRIC_ENCRYPTION'}

    # --- management ----------------------------------------------------------

    def describe(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeys.get', name)
        return self.shown_version(name, version) if version else self.shown(name)

    def patch(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeyVersions.update', name)
        self.keys[name]['versions'][version]['state'] = \
            {1: 'ENABLED', 2: 'DISABLED'}.get(body['state'], body['state'])
        return self.shown_version(name, version)

    def destroy(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeyVersions.destroy', name)
        self.keys[name]['versions'][version]['state'] = 'DESTROY_SCHEDULED'
        return self.shown_version(name, version)

    def restore(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeyVersions.restore', name)
        self.keys[name]['versions'][version]['state'] = 'DISABLED'
        return self.shown_version(name, version)

    def new_version(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeyVersions.create', name)
        return self.shown_version(name, self.add_version(name))

    def set_primary(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeys.update', name)
        self.keys[name]['primary'] = body['cryptoKeyVersionId']
        return self.shown(name)

    def test_permissions(self, name, version, body, member):
        held = [p for p in body.get('permissions', []) if self.tokens.permitted(member, p)]
        return {'permissions': held} if held else {}

    # --- use -----------------------------------------------------------------

    def field(self, body, name, snake):
        """A field of bytes whose sum, where it comes along, is right."""
        value = base64.b64decode(body.get(name, ''), validate=True)
        given = body.get(name + 'Crc32c')
        if given is not None and int(given) != crc32c(value):
            raise Failed('INVALID_ARGUMENT', f'The checksum in field {snake}_crc32c did not match the data in field '
                         f'{snake}.')
        return value, given is not None

    def encrypt(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeyVersions.useToEncrypt', name)
        plaintext, plaintext_verified = self.field(body, 'plaintext', 'plaintext')
        aad, aad_verified = self.field(body, 'additionalAuthenticatedData', 'additional_authenticated_data')
        number = version or self.keys[name]['primary']
        held = self.enabled(name, number)
        wrapped = bytes([10, 36]) + int(number).to_bytes(2, 'big') + stand_in.wrap(held['material'], plaintext, aad)
        return {'name': f'{name}/cryptoKeyVersions/{number}', 'ciphertext': base64.b64encode(wrapped).decode(),
                'ciphertextCrc32c': str(crc32c(wrapped)), 'protectionLevel': 'SOFTWARE',
                **({'verifiedPlaintextCrc32c': True} if plaintext_verified else {}),
                **({'verifiedAdditionalAuthenticatedDataCrc32c': True} if aad_verified else {})}

    def decrypt(self, name, version, body, member):
        self.require(member, 'cloudkms.cryptoKeyVersions.useToDecrypt', name)
        wrapped, _ = self.field(body, 'ciphertext', 'ciphertext')
        aad, _ = self.field(body, 'additionalAuthenticatedData', 'additional_authenticated_data')
        number = str(int.from_bytes(wrapped[2:4], 'big'))
        plaintext = None
        if wrapped[:2] == bytes([10, 36]) and number in self.keys[name]['versions']:
            material = self.keys[name]['versions'][number]['material']
            plaintext = stand_in.unwrap(material, wrapped[4:], aad)
            if plaintext is not None:
                self.enabled(name, number)
        if plaintext is None:
            raise Failed('INVALID_ARGUMENT', "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
        return {'plaintext': base64.b64encode(plaintext).decode(), 'plaintextCrc32c': str(crc32c(plaintext)),
                'usedPrimary': number == self.keys[name]['primary'], 'protectionLevel': 'SOFTWARE'}

    def enabled(self, name, number):
        held = self.keys[name]['versions'][number]
        if held['state'] != 'ENABLED':
            raise Failed('FAILED_PRECONDITION',
                         f'{name}/cryptoKeyVersions/{number} is not enabled, current state is: {held["state"]}.',
                         [{'@type': 'type.googleapis.com/google.rpc.PreconditionFailure',
                           'violations': [{'type': 'KEY_NOT_ENABLED', 'subject': f'{name}/cryptoKeyVersions/{number}'}]}])
        return held
