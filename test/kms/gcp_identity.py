"""Where access tokens for Google Cloud come from: the token endpoint, the
security token service of workload identity federation, the impersonation of a
service account, and the metadata server."""

import base64
import hashlib
import json

import gcp
from aws_identity import iso
from web import Reply, Service

JWT_GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'
SHA256_PREFIX = bytes.fromhex('3031300d060960864801650304020105000420')


def decoded(part):
    return base64.urlsafe_b64decode(part + '=' * (-len(part) % 4))


def rs256_valid(token, modulus):
    """Is a JWT signed (PKCS #1 v1.5, SHA-256, exponent 65537) by the key of this modulus?"""
    signed, _, signature = token.rpartition('.')
    size = (modulus.bit_length() + 7) // 8
    digest = SHA256_PREFIX + hashlib.sha256(signed.encode()).digest()
    padded = b'\0\1' + b'\xff' * (size - len(digest) - 3) + b'\0' + digest
    return pow(int.from_bytes(decoded(signature), 'big'), 65537, modulus) == int.from_bytes(padded, 'big')


class TokenEndpoint(Service):
    """oauth2.googleapis.com, sts.googleapis.com and iamcredentials.googleapis.com in one."""

    name = 'gcptoken'

    def __init__(self, world, tokens, service_account):
        super().__init__(world)
        self.tokens = tokens
        self.account = service_account      # {client_email, modulus, ...}
        self.subject_tokens = None          # those that are accepted; None: any
        world.settings.setdefault('credential_seconds', 3600)

    def operation(self, request):
        if request.path.endswith(':generateAccessToken'):
            return 'impersonate', request.path
        if request.path == '/v1/token':
            return 'exchange', ''
        if request.path in ('/subject', '/subject.json'):
            return 'subject', ''
        return 'token', request.form().get('grant_type', '')

    def failure(self, request, fault):
        status = {'throttle': 429, 'unavailable': 503}.get(fault['fault']) or fault.get('status', 400)
        return Reply(status, {'error': fault.get('code', 'temporarily_unavailable'),
                              'error_description': fault.get('message', '')})

    def refuse(self, error, description, status=400):
        return Reply(status, {'error': error, 'error_description': description})

    def give(self, request, member, **more):
        seconds = self.world.settings['credential_seconds']
        request.note['principal'] = member
        return Reply(200, {'access_token': self.tokens.issue(member, seconds), 'expires_in': seconds,
                           'token_type': 'Bearer', 'scope': 'https://www.googleapis.com/auth/cloudkms', **more})

    def handle(self, request, admin=False):
        operation, _ = self.operation(request)
        return {'token': self.token, 'exchange': self.exchange, 'impersonate': self.impersonate,
                'subject': self.subject}[operation](request)

    def token(self, request):
        form = request.form()
        if form.get('grant_type') == 'refresh_token':
            if (form.get('client_id'), form.get('client_secret'), form.get('refresh_token')) != \
                    ('envelope.apps.example', 'client/secret', '1//refresh'):
                return self.refuse('invalid_grant', 'Bad Request')
            return self.give(request, 'user:operator@example.com')
        if form.get('grant_type') != JWT_GRANT:
            return self.refuse('unsupported_grant_type', 'Invalid grant_type: ' + form.get('grant_type', ''))
        try:
            header, claims = (json.loads(decoded(part)) for part in form['assertion'].split('.')[:2])
            valid = header['alg'] == 'RS256' and rs256_valid(form['assertion'], self.account['modulus'])
        except (KeyError, ValueError):
            return self.refuse('invalid_grant', 'Invalid JWT.')
        if claims.get('iss') != self.account['client_email']:
            return self.refuse('invalid_grant', 'Invalid grant: account not found')
        if not valid:
            return self.refuse('invalid_grant', 'Invalid JWT Signature.')
        now = self.world.now()
        if not (claims['iat'] - 300 <= now < claims['exp'] + 300 and claims['exp'] - claims['iat'] <= 3600):
            return self.refuse('invalid_grant', 'Invalid JWT: Token must be a short-lived token (60 minutes) and in a '
                               'reasonable timeframe. Check your iat and exp values in the JWT claim.')
        if claims.get('aud') not in (self.account['token_uri'], 'https://oauth2.googleapis.com/token') or not claims.get('scope'):
            return self.refuse('invalid_scope', 'Invalid OAuth scope or ID token audience provided.')
        return self.give(request, 'serviceAccount:' + claims['iss'])

    def exchange(self, request):
        form = request.json() if 'json' in request.headers.get('content-type', '') else request.form()
        form = form or {}

        def field(snake):
            camel = snake.split('_')[0] + ''.join(w.title() for w in snake.split('_')[1:])
            return form.get(snake, form.get(camel))
        if field('grant_type') != EXCHANGE_GRANT or not field('audience') or not field('subject_token'):
            return self.refuse('invalid_request', 'Invalid token exchange request.')
        if self.subject_tokens is not None and field('subject_token') not in self.subject_tokens:
            return self.refuse('invalid_grant', 'The ID Token issued by the identity provider is stale or invalid.')
        return self.give(request, 'principal:federated',
                         issued_token_type='urn:ietf:params:oauth:token-type:access_token')

    def impersonate(self, request):
        if self.tokens.holder(request) is None:
            return gcp.error('UNAUTHENTICATED', 'Request had invalid authentication credentials.')
        account = request.path.rpartition('/')[2].partition(':')[0]
        seconds = self.world.settings['credential_seconds']
        return Reply(200, {'accessToken': self.tokens.issue('serviceAccount:' + account, seconds),
                           'expireTime': iso(self.world.now() + seconds)})

    def subject(self, request):
        """Where an external_account of a URL source finds its subject token."""
        token = (self.subject_tokens or ['subject-token'])[-1]
        if request.headers.get('x-subject-header') != 'yes':
            return Reply(403, {'error': 'header missing'})
        if request.path.endswith('.json'):
            return Reply(200, {'value': token})
        return Reply(200, token.encode(), content_type='text/plain')


class MetadataServer(Service):
    name = 'gcpmeta'

    def __init__(self, world, tokens):
        super().__init__(world)
        self.tokens = tokens

    def operation(self, request):
        return 'token', request.path

    def failure(self, request, fault):
        return Reply({'throttle': 429, 'unavailable': 503}.get(fault['fault']) or fault.get('status', 400),
                     b'fault', content_type='text/html')

    def handle(self, request, admin=False):
        flavor = {'Metadata-Flavor': 'Google', 'Server': 'Metadata Server for VM'}
        if request.headers.get('metadata-flavor') != 'Google' or 'x-forwarded-for' in request.headers:
            return Reply(403, b'Missing Metadata-Flavor:Google header.', flavor, 'text/html')
        if request.path == '/computeMetadata/v1/instance/service-accounts/default/token':
            seconds = self.world.settings['credential_seconds']
            return Reply(200, {'access_token': self.tokens.issue('serviceAccount:vm@test.example', seconds),
                               'expires_in': seconds, 'token_type': 'Bearer'}, flavor)
        if request.path == '/':
            return Reply(200, b'computeMetadata/\n', flavor, 'application/text')
        return Reply(404, b'not found', flavor, 'text/html')
