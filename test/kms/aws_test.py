"""The fault server's AWS, asked by botocore: what a real client takes for
right replies and for each error.    python aws_test.py FOLDER"""

import base64
import json
import os
import sys
import time
import urllib.request

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectTimeoutError, ConnectionClosedError, ReadTimeoutError
from botocore.utils import ContainerMetadataFetcher, InstanceMetadataFetcher

from tap import FaultServer, ok, raised, same

server = FaultServer(sys.argv[1])
for name in [n for n in os.environ if n.startswith('AWS_')]:
    del os.environ[name]


def client(name, access_key='AKIDENVELOPETEST', secret='secret/of+the=test', token=None, region='us-east-1', **more):
    scheme = more.pop('scheme', 'https')
    config = Config(retries={'total_max_attempts': 1}, connect_timeout=2, read_timeout=2, **more)
    return botocore.session.get_session().create_client(
        name, region_name=region, endpoint_url=server.url(name, scheme), aws_access_key_id=access_key,
        aws_secret_access_key=secret, aws_session_token=token, verify=os.path.join(sys.argv[1], 'ca.pem'), config=config)


def code(call):
    """(error code, status, message) of a call that fails."""
    e = raised(ClientError, call)
    return (e.response['Error']['Code'], e.response['ResponseMetadata']['HTTPStatusCode'],
            e.response['Error']['Message']) if e else None


kms = client('kms')
context = {'envelope:tenant': 'Zürich', 'envelope:key_id': '42'}
key = kms.create_key()['KeyMetadata']['Arn']
kms.create_alias(AliasName='alias/platform', TargetKeyId=key)

# Use
made = kms.generate_data_key(KeyId='alias/platform', KeySpec='AES_256', EncryptionContext=context)
ok(len(made['Plaintext']) == 32 and made['KeyId'] == key, 'GenerateDataKey by an alias answers with the ARN of the key')
ok(made['ResponseMetadata']['RequestId'], 'with a request id')
for name in (key, key.rpartition('/')[2], 'alias/platform', key.rpartition(':')[0] + ':alias/platform'):
    opened = kms.decrypt(KeyId=name, CiphertextBlob=made['CiphertextBlob'], EncryptionContext=context)
    ok(opened['Plaintext'] == made['Plaintext'] and opened['KeyId'] == key, f'Decrypt as {name.rpartition(":")[2][:8]}')
other = kms.create_key()['KeyMetadata']['Arn']
moved = kms.re_encrypt(CiphertextBlob=made['CiphertextBlob'], SourceKeyId=key, SourceEncryptionContext=context,
                       DestinationKeyId=other, DestinationEncryptionContext=context)
same(kms.decrypt(KeyId=other, CiphertextBlob=moved['CiphertextBlob'], EncryptionContext=context)['Plaintext'],
     made['Plaintext'], 'ReEncrypt keeps what is inside')
wrapped = kms.encrypt(KeyId=key, Plaintext=b'x' * 32, EncryptionContext=context)
same(kms.decrypt(KeyId=key, CiphertextBlob=wrapped['CiphertextBlob'], EncryptionContext=context)['Plaintext'],
     b'x' * 32, 'Encrypt and Decrypt')


def decrypt(blob=made['CiphertextBlob'], key_id=key, with_context=context, by=kms):
    return lambda: by.decrypt(KeyId=key_id, CiphertextBlob=blob, EncryptionContext=with_context)


# Refusals
same(code(decrypt(with_context={}))[:2], ('InvalidCiphertextException', 400), 'another context')
same(code(decrypt(key_id=other))[0], 'IncorrectKeyException', 'another key')
same(code(decrypt(blob=b'junk'))[0], 'InvalidCiphertextException', 'no blob of ours')
same(code(decrypt(key_id=key[:-1] + 'x'))[0], 'NotFoundException', 'no such key')
same(code(decrypt(key_id='alias/none'))[0], 'NotFoundException', 'no such alias')
same(code(decrypt(by=client('kms', region='eu-west-1')))[0], 'NotFoundException', 'a key of another region')
same(code(lambda: kms.generate_data_key(KeyId=key, KeySpec='AES_256', DryRun=True))[0], 'DryRunOperationException',
     'a dry run that would succeed')
kms.disable_key(KeyId=key)
same(code(decrypt())[0], 'DisabledException', 'a disabled key')
same(kms.describe_key(KeyId=key)['KeyMetadata']['KeyState'], 'Disabled', 'and it is described')
kms.enable_key(KeyId=key)
ok(decrypt()()['Plaintext'], 'enabled again')
kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
same(code(decrypt())[0], 'KMSInvalidStateException', 'a key that is to be deleted')
kms.cancel_key_deletion(KeyId=key)
same(code(decrypt())[0], 'DisabledException', 'not any more, but disabled')
kms.enable_key(KeyId=key)

# Who asks
same(code(decrypt(by=client('kms', access_key='AKIANOBODY')))[:2], ('UnrecognizedClientException', 400), 'nobody')
same(code(decrypt(by=client('kms', secret='other')))[0], 'InvalidSignatureException', 'another secret')
server.control('POST', '/clock', {'offset': 600})
ok('Signature expired' in code(decrypt())[2], 'a clock that is ten minutes late')
server.control('POST', '/clock', {'offset': -600})
ok('not yet current' in code(decrypt())[2], 'or early')
server.control('POST', '/clock', {'offset': 90})
ok(decrypt()()['Plaintext'], 'a clock that is 90 seconds off')
server.control('POST', '/clock', {'offset': 0})
user = 'arn:aws:iam::111122223333:user/envelope'
server.control('POST', '/policy', {'arn': user, 'statements': [
    {'Effect': 'Allow', 'Action': ['kms:GenerateDataKey', 'kms:DescribeKey'], 'Resource': key}]})
same(code(decrypt()), ('AccessDeniedException', 400, f'User: {user} is not authorized to perform: kms:Decrypt on resource: '
                       f'{key} because no identity-based policy allows the kms:Decrypt action'), 'a policy without Decrypt')
ok(kms.generate_data_key(KeyId=key, KeySpec='AES_256'), 'that has GenerateDataKey')
server.control('POST', '/policy', {'arn': user})

# Credentials
sts = client('sts')
server.control('POST', '/set', {'service': 'sts', 'attribute': 'roles', 'value': {
    'arn:aws:iam::999988887777:role/customer': {'external_id': 'x-1'},
    'arn:aws:iam::111122223333:role/web': {'web_identity_token': 'header.claims.signature'}}})
same(code(lambda: sts.assume_role(RoleArn='arn:aws:iam::999988887777:role/customer', RoleSessionName='envelope'))[:2],
     ('AccessDenied', 403), 'AssumeRole without the external id')
held = sts.assume_role(RoleArn='arn:aws:iam::999988887777:role/customer', RoleSessionName='envelope', ExternalId='x-1')['Credentials']
customer = server.control('POST', '/admin/kms/CreateKey', {'Account': '999988887777'})['KeyMetadata']['Arn']
assumed = client('kms', held['AccessKeyId'], held['SecretAccessKey'], held['SessionToken'])
ok(assumed.generate_data_key(KeyId=customer, KeySpec='AES_256'), 'a role of another account uses the key of that account')
same(code(lambda: kms.generate_data_key(KeyId=customer, KeySpec='AES_256'))[0], 'AccessDeniedException', 'which we cannot')
server.control('POST', '/revoke', {})
same(code(lambda: assumed.generate_data_key(KeyId=customer, KeySpec='AES_256'))[0], 'ExpiredTokenException', 'until they die')
same(code(lambda: client('kms', held['AccessKeyId'], held['SecretAccessKey']).describe_key(KeyId=key))[0],
     'UnrecognizedClientException', 'credentials without their token are none')
web = sts.assume_role_with_web_identity(RoleArn='arn:aws:iam::111122223333:role/web', RoleSessionName='envelope',
                                        WebIdentityToken='header.claims.signature')['Credentials']
ok(client('kms', web['AccessKeyId'], web['SecretAccessKey'], web['SessionToken']).describe_key(KeyId=key), 'web identity')
same(code(lambda: sts.assume_role_with_web_identity(RoleArn='arn:aws:iam::111122223333:role/web', RoleSessionName='envelope',
                                                    WebIdentityToken='other'))[0], 'InvalidIdentityToken', 'another token')
same(sts.get_caller_identity()['Arn'], user, 'GetCallerIdentity')
held = InstanceMetadataFetcher(base_url=server.url('imds') + '/').retrieve_iam_role_credentials()
ok(client('kms', held['access_key'], held['secret_key'], held['token']).describe_key(KeyId=key), 'metadata of an instance')
bare = urllib.request.Request(server.url('imds') + '/latest/meta-data/iam/security-credentials/')
same(raised(urllib.error.HTTPError, lambda: urllib.request.urlopen(bare)).code, 401, 'which refuses version 1')
server.control('POST', '/settings', {'container_token': 'let me in'})
held = ContainerMetadataFetcher().retrieve_full_uri(server.url('container') + '/v2/credentials/envelope',
                                                    headers={'Authorization': 'let me in'})
ok(client('kms', held['AccessKeyId'], held['SecretAccessKey'], held['Token']).describe_key(KeyId=key), 'container')

# Faults, as botocore sees them
server.fault(service='kms', operation='Decrypt', fault='throttle', count=1)
same(code(decrypt())[:2], ('ThrottlingException', 400), 'throttling is a 400')
server.fault(service='kms', fault='unavailable', count=1)
same(code(decrypt())[:2], ('KMSInternalException', 500), 'the service has a problem')
server.fault(service='kms', fault='error', code='com.amazonaws.kms#DisabledException:http://internal.amazon.com/', count=1)
same(code(decrypt())[0], 'DisabledException', 'a code with what stands around it elsewhere')
server.fault(service='kms', fault='short_dek', count=1)
same(len(decrypt()()['Plaintext']), 31, 'a key that is too short')
server.fault(service='kms', fault='chunked', count=1)
same(decrypt()()['Plaintext'], made['Plaintext'], 'a reply in chunks')
server.fault(service='kms', fault='latency', ms=300, count=1)
began = time.monotonic()
decrypt()()
ok(time.monotonic() - began >= 0.3, 'a late reply')
server.fault(service='kms', fault='stall', count=1)
ok(raised(ReadTimeoutError, decrypt()), 'no reply')
for fault in ('reset', 'truncated'):
    server.fault(service='kms', fault=fault, count=1)
    ok(raised(Exception, decrypt()), f'{fault}')
server.control('POST', '/listen', {'service': 'kms', 'state': 'refuse'})
ok(raised(Exception, decrypt(by=client('kms'))), 'nobody listens')
server.control('POST', '/listen', {'service': 'kms', 'state': 'blackhole'})
ok(raised(ConnectTimeoutError, decrypt(by=client('kms', scheme='http'))), 'a black hole')
server.control('POST', '/listen', {'service': 'kms', 'state': 'open'})
ok(decrypt(by=client('kms'))()['Plaintext'], 'and listens again')
for name in ('expired', 'wrong_name', 'other_ca'):
    server.control('POST', '/certificate', {'name': name})
    ok(raised(Exception, decrypt(by=client('kms'))), f'certificate: {name}')
server.control('POST', '/certificate', {'name': 'good'})
ok(server.calls()['kms Decrypt'] > 20, 'calls are counted')
entry = server.control('GET', '/log')[0]
ok(entry['request_id'] and entry['operation'] == 'CreateKey' and entry['principal'] == user, 'and logged')
print('1..%d' % __import__('tap').count)
