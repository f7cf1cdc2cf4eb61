"""Where AWS credentials come from: STS, the metadata service of an instance
(version 2), and the endpoint of a container."""

import secrets
from datetime import datetime, timezone
from xml.sax.saxutils import escape

import sigv4
from aws import ACCOUNT
from web import Reply, Service

NAMESPACE = 'https://sts.amazonaws.com/doc/2011-06-15/'


def iso(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')


def xml(value):
    if isinstance(value, dict):
        return ''.join(f'<{name}>{xml(inner)}</{name}>' for name, inner in value.items())
    return escape(str(value))


class Identity(Service):
    """What those have in common: they give credentials that end."""

    def __init__(self, world, principals):
        super().__init__(world)
        self.principals = principals
        world.settings.setdefault('credential_seconds', 3600)

    def credentials(self, role, session, seconds=None):
        """Of a role by name; (access key, secret, token, time of expiry)."""
        seconds = self.world.settings.get('credential_seconds') or seconds
        expires = self.world.now() + seconds
        account = role.split(':')[4] if role.startswith('arn:') else ACCOUNT
        name = role.rpartition('/')[2]
        issued = self.principals.issue(f'arn:aws:sts::{account}:assumed-role/{name}/{session}',
                                       f'arn:aws:iam::{account}:role/{name}', expires)
        return (*issued, expires)

    def document(self, role, session):
        """As the two local services give them."""
        access_key, secret, token, expires = self.credentials(role, session)
        return {'Code': 'Success', 'Type': 'AWS-HMAC', 'LastUpdated': iso(self.world.now()),
                'AccessKeyId': access_key, 'SecretAccessKey': secret, 'Token': token, 'Expiration': iso(expires),
                'UnknownField': {'of': ['another', 'day']}}

    def failure(self, request, fault):
        status = {'throttle': 429, 'unavailable': 503}.get(fault['fault']) or fault.get('status', 400)
        return Reply(status, {'Code': fault.get('code', 'Unavailable'), 'Message': fault.get('message', '')})


class Sts(Identity):
    name = 'sts'

    def __init__(self, world, principals):
        super().__init__(world, principals)
        self.roles = {}               # arn -> {external_id, web_identity_token}; absent: anybody

    def operation(self, request):
        form = request.form()
        return form.get('Action', ''), form.get('RoleArn', '')

    def error(self, request, code, message, status=400):
        body = {'Error': {'Type': 'Sender', 'Code': code, 'Message': message}, 'RequestId': request.id}
        if 'json' in request.headers.get('accept', ''):
            return Reply(status, body, {'x-amzn-RequestId': request.id})
        return Reply(status, f'<ErrorResponse xmlns="{NAMESPACE}">{xml(body)}</ErrorResponse>'.encode(),
                     {'x-amzn-RequestId': request.id}, 'text/xml')

    def failure(self, request, fault):
        if fault['fault'] == 'throttle':
            return self.error(request, 'Throttling', 'Rate exceeded', 400)
        if fault['fault'] == 'unavailable':
            return self.error(request, 'ServiceUnavailable', '', 503)
        return self.error(request, fault['code'], fault.get('message', ''), fault.get('status', 400))

    def handle(self, request, admin=False):
        action, role = self.operation(request)
        form = request.form()
        method = {'AssumeRole': self.assume_role, 'AssumeRoleWithWebIdentity': self.web_identity,
                  'GetCallerIdentity': self.caller_identity}.get(action)
        if not method:
            return self.error(request, 'InvalidAction', f'Could not find operation {action}')
        return method(request, form, role)

    def answer(self, request, action, result):
        if 'json' in request.headers.get('accept', ''):
            if 'Credentials' in result:
                result['Credentials']['Expiration'] = self.expires
            return Reply(200, {f'{action}Response': {f'{action}Result': result,
                                                     'ResponseMetadata': {'RequestId': request.id}}})
        body = {f'{action}Result': result, 'ResponseMetadata': {'RequestId': request.id}}
        return Reply(200, f'<{action}Response xmlns="{NAMESPACE}">{xml(body)}</{action}Response>'.encode(),
                     {'x-amzn-RequestId': request.id}, 'text/xml')

    def give(self, request, action, form, role):
        access_key, secret, token, self.expires = self.credentials(
            role, form.get('RoleSessionName', 's'), int(form.get('DurationSeconds', 3600)))
        session = f'arn:aws:sts::{role.split(":")[4]}:assumed-role/{role.rpartition("/")[2]}/{form.get("RoleSessionName")}'
        return self.answer(request, action, {
            'Credentials': {'AccessKeyId': access_key, 'SecretAccessKey': secret, 'SessionToken': token,
                            'Expiration': iso(self.expires)},
            'AssumedRoleUser': {'AssumedRoleId': 'AROATEST:s', 'Arn': session}})

    def signer(self, request):
        principal, _ = sigv4.verify(request, 'sts', self.principals.keys, self.world.now())
        request.note['principal'] = principal['arn']
        return principal

    def refused(self, request, e):
        code = {'UnrecognizedClientException': 'InvalidClientTokenId', 'ExpiredTokenException': 'ExpiredToken',
                'InvalidSignatureException': 'SignatureDoesNotMatch',
                'MissingAuthenticationTokenException': 'MissingAuthenticationToken'}.get(e.args[0], e.args[0])
        return self.error(request, code, e.args[1], 403)

    def assume_role(self, request, form, role):
        try:
            principal = self.signer(request)
        except sigv4.Refused as e:
            return self.refused(request, e)
        request.note['external_id'] = form.get('ExternalId')
        trust = self.roles.get(role, {})
        if trust.get('external_id') not in (None, form.get('ExternalId')) or \
                not self.principals.permitted(principal, 'sts:AssumeRole', role):
            return self.error(request, 'AccessDenied', f'User: {principal["arn"]} is not authorized to perform: '
                              f'sts:AssumeRole on resource: {role}', 403)
        return self.give(request, 'AssumeRole', form, role)

    def web_identity(self, request, form, role):
        wanted = self.roles.get(role, {}).get('web_identity_token')
        if wanted is not None and form.get('WebIdentityToken') not in (wanted if isinstance(wanted, list) else [wanted]):
            return self.error(request, 'InvalidIdentityToken', 'Couldn\'t retrieve verification key from your identity '
                              'provider,  please reference AssumeRoleWithWebIdentity documentation for requirements')
        return self.give(request, 'AssumeRoleWithWebIdentity', form, role)

    def caller_identity(self, request, form, role):
        try:
            principal = self.signer(request)
        except sigv4.Refused as e:
            return self.refused(request, e)
        return self.answer(request, 'GetCallerIdentity',
                           {'Arn': principal['arn'], 'UserId': 'AIDATEST', 'Account': principal['arn'].split(':')[4]})


class InstanceMetadata(Identity):
    """IMDSv2, on an address of its own; a request without a session token is refused."""

    name = 'imds'
    ROLE = 'envelope-instance'

    def __init__(self, world, principals):
        super().__init__(world, principals)
        self.tokens = {}

    def operation(self, request):
        return ('token' if request.path == '/latest/api/token' else 'credentials'), request.path

    def handle(self, request, admin=False):
        now = self.world.now()
        if request.path == '/latest/api/token':
            seconds = request.headers.get('x-aws-ec2-metadata-token-ttl-seconds', '')
            if request.method != 'PUT' or not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
                return Reply(400 if request.method == 'PUT' else 405, b'', content_type='text/html')
            token = secrets.token_urlsafe(40)
            self.tokens[token] = now + int(seconds)
            return Reply(200, token.encode(), {'X-Aws-Ec2-Metadata-Token-Ttl-Seconds': seconds}, 'text/plain')
        if self.tokens.get(request.headers.get('x-aws-ec2-metadata-token'), 0) <= now:
            return Reply(401, b'<html><title>401 - Unauthorized</title></html>', content_type='text/html')
        if request.path == '/latest/meta-data/iam/security-credentials/':
            return Reply(200, self.ROLE.encode(), content_type='text/plain')
        if request.path == f'/latest/meta-data/iam/security-credentials/{self.ROLE}':
            return Reply(200, self.document(self.ROLE, 'i-0123456789abcdef0'), content_type='text/plain')
        if request.path == '/latest/meta-data/placement/region':
            return Reply(200, b'us-east-1', content_type='text/plain')
        return Reply(404, b'<html><title>404 - Not Found</title></html>', content_type='text/html')


class Container(Identity):
    """What a task of ECS and a pod of EKS ask: GET on a path, perhaps with a token."""

    name = 'container'

    def operation(self, request):
        return 'credentials', request.path

    def handle(self, request, admin=False):
        wanted = self.world.settings.get('container_token')
        if wanted is not None and request.headers.get('authorization') != wanted:
            return Reply(401, {'code': 'Unauthorized', 'message': 'not authorized'})
        if request.path != '/v2/credentials/envelope':
            return Reply(404, {'code': 'NoCredentials', 'message': 'no credentials'})
        document = self.document('envelope-task', 'task')
        if self.world.settings.get('epoch_expiry'):
            document['Expiration'] = self.principals.keys[document['AccessKeyId']]['expires']
        return Reply(200, {**document, 'RoleArn': f'arn:aws:iam::{ACCOUNT}:role/envelope-task'})
