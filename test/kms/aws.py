"""AWS KMS: the calls that a client of data keys makes, key states enforced.

Errors have the codes, bodies and statuses that the service answers with:
nearly all come as 400, throttling too, and AccessDeniedException writes
"Message" where the others write "message".
"""

import base64
import binascii
import fnmatch
import json
import re
import secrets
import uuid

import sigv4
import stand_in
from web import Reply, Service

ACCOUNT = '111122223333'
STATUS = {'KMSInternalException': 500, 'DependencyTimeoutException': 503, 'KeyUnavailableException': 500,
          'ServiceUnavailableException': 503, 'InternalFailure': 500}


class Failed(Exception):
    """code, message (None: the body has none)"""


def error(request, code, message=None, status=None):
    body = {'__type': code}
    if message is not None:
        body['Message' if code == 'AccessDeniedException' else 'message'] = message
    return Reply(status or STATUS.get(code, 400), body,
                 {'x-amzn-RequestId': request.id}, 'application/x-amz-json-1.1')


class Principals:
    """Who may sign, and what they may do.  Shared with STS and the metadata service."""

    def __init__(self):
        self.keys = {}                # access key -> {secret, token, expires, arn}
        self.policies = {}            # arn of a user or role -> statements; absent: anything
        self.add('AKIDENVELOPETEST', 'secret/of+the=test', f'arn:aws:iam::{ACCOUNT}:user/envelope')

    def add(self, access_key, secret, arn, token=None, expires=None, policy_of=None):
        self.keys[access_key] = {'secret': secret, 'token': token, 'expires': expires, 'arn': arn,
                                 'policy_of': policy_of or arn}

    def issue(self, arn, policy_of, expires):
        """Temporary credentials."""
        access_key = 'ASIA' + secrets.token_hex(8).upper()
        secret, token = secrets.token_urlsafe(30), 'FwoGZXIvYXdzE' + base64.b64encode(secrets.token_bytes(300)).decode()
        self.add(access_key, secret, arn, token, expires, policy_of)
        return access_key, secret, token

    def permitted(self, principal, action, resource):
        statements = self.policies.get(principal['policy_of'])
        if statements is None:
            return True
        allowed = False
        for statement in statements:
            actions, resources = (v if isinstance(v, list) else [v]
                                  for v in (statement['Action'], statement.get('Resource', '*')))
            if any(fnmatch.fnmatchcase(action.lower(), a.lower()) for a in actions) and \
                    any(fnmatch.fnmatchcase(resource, r) for r in resources):
                if statement['Effect'] == 'Deny':
                    return False
                allowed = True
        return allowed


class Kms(Service):
    name = 'kms'

    def __init__(self, world, principals):
        super().__init__(world)
        self.principals = principals
        self.keys = {}                # arn -> {state, material, ...}
        self.aliases = {}             # arn of the alias -> arn of the key

    def operation(self, request):
        target = request.headers.get('x-amz-target', '').rpartition('.')[2]
        body = request.json() or {}
        return target, str(body.get('KeyId') or body.get('SourceKeyId') or '')

    def failure(self, request, fault):
        if fault['fault'] == 'throttle':
            return error(request, 'ThrottlingException', 'You have exceeded the rate at which you may call KMS. '
                         'Reduce the frequency of your calls.')
        if fault['fault'] == 'unavailable':
            return error(request, fault.get('code', 'KMSInternalException'), None, fault.get('status'))
        return error(request, fault['code'], fault.get('message'), fault.get('status'))

    def handle(self, request, admin=False):
        operation, _ = self.operation(request)
        try:
            if admin:
                principal, region = None, request.headers.get('x-region', 'us-east-1')
            else:
                principal, region = sigv4.verify(request, 'kms', self.principals.keys, self.world.now())
                request.note['principal'] = principal['arn']
            body = request.json()
            if body is None:
                raise Failed('SerializationException', None)
            method = OPERATIONS.get(operation)
            if not method:
                raise Failed('UnknownOperationException', None)
            request.note['context'] = body.get('EncryptionContext')
            reply = method(self, Caller(self, principal, region), body)
        except (Failed, sigv4.Refused) as e:
            return error(request, *e.args)
        except (binascii.Error, KeyError, TypeError) as e:
            return error(request, 'ValidationException', f'1 validation error detected: {e}')
        return Reply(200, reply, {'x-amzn-RequestId': request.id}, 'application/x-amz-json-1.1')

    def find(self, caller, key_id):
        """The ARN of a key by id, ARN, alias or ARN of an alias."""
        prefix = f'arn:aws:kms:{caller.region}:{caller.account}:'
        if not isinstance(key_id, str) or not key_id:
            raise Failed('ValidationException', "1 validation error detected: Value null at 'keyId' failed to satisfy "
                         'constraint: Member must not be null')
        if not key_id.startswith('arn:'):
            key_id = prefix + (key_id if key_id.startswith('alias/') else 'key/' + key_id)
        if not re.fullmatch(r'arn:aws:kms:[a-z0-9-]+:\d{12}:(key|alias)/.+', key_id):
            raise Failed('InvalidArnException', f'Invalid arn {key_id}')
        if key_id.split(':')[3] != caller.region:
            raise Failed('NotFoundException', f'Invalid arn {key_id.split(":")[3]}')
        if ':alias/' in key_id:
            if key_id not in self.aliases:
                raise Failed('NotFoundException', f'Alias {key_id} is not found.')
            key_id = self.aliases[key_id]
        if key_id not in self.keys:
            raise Failed('NotFoundException', f"Key '{key_id}' does not exist")
        return key_id

    def usable(self, arn):
        state = self.keys[arn]['state']
        if state == 'Disabled':
            raise Failed('DisabledException', f'{arn} is disabled.')
        if state != 'Enabled':
            raise Failed('KMSInvalidStateException', f'{arn} is {"pending deletion" if state == "PendingDeletion" else state}.')
        return self.keys[arn]

    # --- operations ----------------------------------------------------------

    def create_key(self, caller, body):
        key_id = body.get('KeyId') if caller.principal is None and body.get('KeyId') else str(uuid.uuid4())
        account = body.get('Account', ACCOUNT) if caller.principal is None else caller.account
        arn = f'arn:aws:kms:{caller.region}:{account}:key/{key_id}'
        self.keys[arn] = {'state': 'Enabled', 'material': secrets.token_bytes(32), 'accounts': body.get('Accounts', [])}
        return {'KeyMetadata': self.metadata(arn)}

    def metadata(self, arn):
        return {'AWSAccountId': arn.split(':')[4], 'KeyId': arn.rpartition('/')[2], 'Arn': arn,
                'KeyState': self.keys[arn]['state'], 'Enabled': self.keys[arn]['state'] == 'Enabled',
                'KeyUsage': 'ENCRYPT_DECRYPT', 'KeySpec': 'SYMMETRIC_DEFAULT', 'KeyManager': 'CUSTOMER',
                'Origin': 'AWS_KMS', 'MultiRegion': False, 'CreationDate': 1.7e9, 'Description': ''}

    def create_alias(self, caller, body):
        self.aliases[f'arn:aws:kms:{caller.region}:{ACCOUNT}:{body["AliasName"]}'] = self.find(caller, body['TargetKeyId'])
        return {}

    def describe_key(self, caller, body):
        arn = caller.allowed('kms:DescribeKey', body.get('KeyId'))
        return {'KeyMetadata': self.metadata(arn)}

    def set_state(self, action, state):
        def method(self, caller, body):
            arn = caller.allowed(action, body.get('KeyId'))
            self.keys[arn]['state'] = state
            return {'KeyId': arn, 'KeyState': state} if 'Deletion' in action else {}
        return method

    def generate_data_key(self, caller, body):
        arn = caller.allowed('kms:GenerateDataKey', body.get('KeyId'))
        key = self.usable(arn)
        if body.get('KeySpec') != 'AES_256' and body.get('NumberOfBytes') is None:
            raise Failed('ValidationException', 'Please specify either number of bytes or key spec.')
        if body.get('DryRun'):
            raise Failed('DryRunOperationException', 'The request would have succeeded, but the DryRun option is set.')
        dek = secrets.token_bytes(body.get('NumberOfBytes') or 32)
        return {'CiphertextBlob': seal(arn, key, dek, body.get('EncryptionContext')), 'KeyId': arn,
                'Plaintext': base64.b64encode(dek).decode()}

    def encrypt(self, caller, body):
        arn = caller.allowed('kms:Encrypt', body.get('KeyId'))
        key = self.usable(arn)
        plaintext = base64.b64decode(body['Plaintext'], validate=True)
        return {'CiphertextBlob': seal(arn, key, plaintext, body.get('EncryptionContext')), 'KeyId': arn,
                'EncryptionAlgorithm': 'SYMMETRIC_DEFAULT'}

    def decrypt(self, caller, body):
        arn, plaintext = self.open(caller, 'kms:Decrypt', body.get('CiphertextBlob'), body.get('KeyId'),
                                   body.get('EncryptionContext'))
        return {'Plaintext': base64.b64encode(plaintext).decode(), 'KeyId': arn,
                'EncryptionAlgorithm': 'SYMMETRIC_DEFAULT'}

    def re_encrypt(self, caller, body):
        target = caller.allowed('kms:ReEncryptTo', body.get('DestinationKeyId'))
        source, plaintext = self.open(caller, 'kms:ReEncryptFrom', body.get('CiphertextBlob'),
                                      body.get('SourceKeyId'), body.get('SourceEncryptionContext'))
        key = self.usable(target)
        return {'CiphertextBlob': seal(target, key, plaintext, body.get('DestinationEncryptionContext')),
                'SourceKeyId': source, 'KeyId': target, 'SourceEncryptionAlgorithm': 'SYMMETRIC_DEFAULT',
                'DestinationEncryptionAlgorithm': 'SYMMETRIC_DEFAULT'}

    def open(self, caller, action, blob, key_id, context):
        """What a blob holds, and the key it is under."""
        blob = base64.b64decode(blob, validate=True)
        length = blob[4] if len(blob) > 5 and blob[:4] == b'\1\2\3\0' else 0
        arn = blob[5:5 + length].decode('ascii', 'replace')
        if arn not in self.keys:
            raise Failed('InvalidCiphertextException')
        wanted = caller.allowed(action, key_id) if key_id else caller.allowed(action, arn)
        if wanted != arn:
            raise Failed('IncorrectKeyException', 'The key ID in the request does not identify a CMK that can perform '
                         'this operation.')
        plaintext = stand_in.unwrap(self.usable(arn)['material'], blob[5 + length:], bound(context))
        if plaintext is None:
            raise Failed('InvalidCiphertextException')
        return arn, plaintext


class Caller:
    """Who calls, and where."""

    def __init__(self, kms, principal, region):
        self.kms = kms
        self.principal = principal
        self.region = region
        self.account = principal['arn'].split(':')[4] if principal else ACCOUNT

    def allowed(self, action, key_id):
        """The ARN of a key on which the caller may do this."""
        try:
            arn = self.kms.find(self, key_id)
        except Failed as e:
            # Who may do nothing on a key is not told that there is none.
            if self.principal and e.args[0] == 'NotFoundException' and str(key_id).startswith('arn:') and \
                    not self.kms.principals.permitted(self.principal, action, key_id):
                self.denied(action, key_id)
            raise
        if self.principal:
            owner = arn.split(':')[4]
            if owner != self.account and self.account not in self.kms.keys[arn]['accounts']:
                self.denied(action, arn, 'resource-based')
            if not self.kms.principals.permitted(self.principal, action, arn):
                self.denied(action, arn)
        return arn

    def denied(self, action, arn, kind='identity-based'):
        raise Failed('AccessDeniedException', f'User: {self.principal["arn"]} is not authorized to perform: {action} '
                     f'on resource: {arn} because no {kind} policy allows the {action} action')


def bound(context):
    return json.dumps(context or {}, sort_keys=True).encode()


def seal(arn, key, plaintext, context):
    blob = b'\1\2\3\0' + bytes([len(arn)]) + arn.encode() + stand_in.wrap(key['material'], plaintext, bound(context))
    return base64.b64encode(blob).decode()


OPERATIONS = {
    'CreateKey': Kms.create_key,
    'CreateAlias': Kms.create_alias,
    'UpdateAlias': Kms.create_alias,
    'DescribeKey': Kms.describe_key,
    'DisableKey': Kms.set_state(None, 'kms:DisableKey', 'Disabled'),
    'EnableKey': Kms.set_state(None, 'kms:EnableKey', 'Enabled'),
    'ScheduleKeyDeletion': Kms.set_state(None, 'kms:ScheduleKeyDeletion', 'PendingDeletion'),
    'CancelKeyDeletion': Kms.set_state(None, 'kms:CancelKeyDeletion', 'Disabled'),
    'GenerateDataKey': Kms.generate_data_key,
    'Encrypt': Kms.encrypt,
    'Decrypt': Kms.decrypt,
    'ReEncrypt': Kms.re_encrypt,
}
