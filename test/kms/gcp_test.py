"""The fault server's Google Cloud, asked by google-cloud-kms over REST and by
google-auth.    python gcp_test.py FOLDER"""

import json
import os
import sys

import google.auth
import google.auth.transport.requests
import google_crc32c
import requests
from google.api_core import exceptions
from google.auth import identity_pool, credentials as gauth_credentials
from google.auth.exceptions import OAuthError, RefreshError
from google.cloud import kms_v1 as kms
from google.oauth2 import credentials as user_credentials

from crc32c import crc32c
from tap import FaultServer, ok, raised, same

folder = sys.argv[1]
server = FaultServer(folder)
ca = os.path.join(folder, 'ca.pem')
os.environ['REQUESTS_CA_BUNDLE'] = ca
transport = google.auth.transport.requests.Request()


def client(credentials):
    return kms.KeyManagementServiceClient(transport='rest', credentials=credentials,
                                          client_options={'api_endpoint': server.url('gcp', 'https')})


class Bearer(gauth_credentials.Credentials):
    """A token as it is, or that another kind of credentials gets.  (The client would
    sign requests of a service account itself, and ask for no token.)"""

    def __init__(self, token=None, source=None):
        super().__init__()
        self.token, self.source = token, source

    def refresh(self, request):
        if self.source is None:
            raise RefreshError('not here')
        self.source.refresh(request)
        self.token = self.source.token


SCOPES = ['https://www.googleapis.com/auth/cloudkms']
RING = 'projects/p/locations/europe-west1/keyRings/r'
KEY = RING + '/cryptoKeys/platform'
server.control('POST', f'/admin/gcp/v1/{RING}/cryptoKeys?cryptoKeyId=platform', {})
server.control('POST', f'/admin/gcp/v1/{RING}/cryptoKeys?cryptoKeyId=other', {})

account, _ = google.auth.load_credentials_from_file(os.path.join(folder, 'service_account.json'), scopes=SCOPES)
account.refresh(transport)
ok(account.valid, 'a service account gets a token for its signed JWT')
server.control('POST', '/clock', {'offset': 7200})
e = raised(RefreshError, lambda: account.refresh(transport))
ok(e and 'reasonable timeframe' in str(e), 'but not if its clock is two hours off')
server.control('POST', '/clock', {'offset': 90})
account.refresh(transport)
ok(account.valid, 'while 90 seconds do no harm')
server.control('POST', '/clock', {'offset': 0})
account.refresh(transport)

google_kms = client(Bearer(source=account))


def sums(**values):
    return {**values, **{name + '_crc32c': crc32c(value) for name, value in values.items()}}


def encrypt(by=google_kms, key=KEY, plaintext=b'k' * 32, aad='envelope:tenant=Zürich'.encode()):
    return by.encrypt(request={'name': key, **sums(plaintext=plaintext, additional_authenticated_data=aad)}, retry=None)


def decrypt(ciphertext, by=google_kms, key=KEY, aad='envelope:tenant=Zürich'.encode()):
    return by.decrypt(request={'name': key, **sums(ciphertext=ciphertext, additional_authenticated_data=aad)}, retry=None)


def refused(call):
    """(status of the body, message) of a call that fails."""
    e = raised(exceptions.GoogleAPICallError, call)
    return (e.response.json()['error']['status'], e.response.json()['error']['message']) if e else (None, '')


def state(version, value):
    google_kms.update_crypto_key_version(
        request={'crypto_key_version': {'name': f'{KEY}/cryptoKeyVersions/{version}', 'state': value},
                 'update_mask': 'state'})


made = encrypt()
same(made.name, KEY + '/cryptoKeyVersions/1', 'encrypt names the version that it used')
ok(made.verified_plaintext_crc32c and made.verified_additional_authenticated_data_crc32c, 'has verified both sums')
same(made.ciphertext_crc32c, google_crc32c.value(made.ciphertext), 'and gives one that another implementation gets')
opened = decrypt(made.ciphertext)
same((opened.plaintext, opened.plaintext_crc32c, opened.used_primary), (b'k' * 32, google_crc32c.value(b'k' * 32), True),
     'decrypt')
same(google_kms.get_crypto_key(name=KEY).primary.state.name, 'ENABLED', 'a key is described')

# Versions
google_kms.create_crypto_key_version(request={'parent': KEY, 'crypto_key_version': {}})
google_kms.update_crypto_key_primary_version(request={'name': KEY, 'crypto_key_version_id': '2'})
same(encrypt().name, KEY + '/cryptoKeyVersions/2', 'a new primary version encrypts')
same(decrypt(made.ciphertext).used_primary, False, 'the old one still decrypts')

# Refusals
status, message = refused(lambda: decrypt(made.ciphertext, aad=b''))
ok(status == 'INVALID_ARGUMENT' and message.startswith('Decryption failed'), 'other additional data')
same(refused(lambda: decrypt(made.ciphertext, key=RING + '/cryptoKeys/other'))[0], 'INVALID_ARGUMENT', 'another key')
same(refused(lambda: decrypt(b'junk'))[0], 'INVALID_ARGUMENT', 'no ciphertext of ours')
ok('checksum in field plaintext_crc32c' in refused(lambda: google_kms.encrypt(
    request={'name': KEY, 'plaintext': b'x', 'plaintext_crc32c': 1}, retry=None))[1], 'a sum that is wrong')
state(1, 'DISABLED')
same(refused(lambda: decrypt(made.ciphertext)),
     ('FAILED_PRECONDITION', KEY + '/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.'), 'a disabled version')
ok(encrypt().name, 'is no matter to another')
state(1, 'ENABLED')
same(decrypt(made.ciphertext).plaintext, b'k' * 32, 'enabled again')
google_kms.destroy_crypto_key_version(name=KEY + '/cryptoKeyVersions/1')
same(refused(lambda: decrypt(made.ciphertext))[0], 'FAILED_PRECONDITION', 'a version that is to be destroyed')
google_kms.restore_crypto_key_version(name=KEY + '/cryptoKeyVersions/1')
ok('DISABLED' in refused(lambda: decrypt(made.ciphertext))[1], 'restored, it is disabled')
state(1, 'ENABLED')
same(refused(lambda: encrypt(key=RING + '/cryptoKeys/none'))[0], 'NOT_FOUND', 'no such key')
member = 'serviceAccount:envelope@test.iam.gserviceaccount.com'
server.control('POST', '/policy', {'member': member, 'permissions': ['cloudkms.cryptoKeyVersions.useToEncrypt']})
status, message = refused(lambda: decrypt(made.ciphertext))
ok(status == 'PERMISSION_DENIED' and "'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource" in message,
   'a role without decrypt')
ok(encrypt().name, 'that may encrypt')
server.control('POST', '/policy', {'member': member})
ok(raised(RefreshError, lambda: encrypt(by=client(Bearer('ya29.none')))), 'a token that is none')
server.control('POST', '/revoke', {})
ok(encrypt().name, 'one that has died: the client gets another')

# Other credentials
def file_with(name, content):
    path = os.path.join(folder, name)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(content if isinstance(content, str) else json.dumps(content))
    return path


user = user_credentials.Credentials(None, refresh_token='1//refresh', client_id='envelope.apps.example',
                                    client_secret='client/secret', token_uri=server.url('gcptoken', 'https') + '/token')
user.refresh(transport)
ok(encrypt(by=client(user)).name, 'a refresh token, as gcloud keeps it')
external = {'type': 'external_account', 'audience': '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q',
            'subject_token_type': 'urn:ietf:params:oauth:token-type:jwt', 'token_url': server.url('gcptoken', 'https') + '/v1/token'}
impersonated = {**external, 'service_account_impersonation_url': server.url('gcptoken', 'https') +
                '/v1/projects/-/serviceAccounts/envelope@test.iam.gserviceaccount.com:generateAccessToken'}
from_file = {'file': file_with('subject', 'subject-token')}
from_url = {'url': server.url('gcptoken', 'https') + '/subject.json', 'headers': {'X-Subject-Header': 'yes'},
            'format': {'type': 'json', 'subject_token_field_name': 'value'}}
server.control('POST', '/set', {'service': 'gcptoken', 'attribute': 'subject_tokens', 'value': ['subject-token']})
for name, base, source in (('file', external, from_file), ('file, impersonating', impersonated, from_file),
                           ('URL', external, from_url)):
    held = identity_pool.Credentials.from_info({**base, 'credential_source': source}, scopes=SCOPES)
    held.refresh(transport)
    ok(encrypt(by=client(held)).name, f'workload identity federation: {name}')
server.control('POST', '/set', {'service': 'gcptoken', 'attribute': 'subject_tokens', 'value': ['another']})
ok(raised(RefreshError, lambda: held.refresh(transport)) is None, 'whose URL gives the new subject token')
held = identity_pool.Credentials.from_info({**external, 'credential_source': from_file}, scopes=SCOPES)
ok(raised(OAuthError, lambda: held.refresh(transport)), 'and whose file has the old one')
os.environ['GCE_METADATA_HOST'] = f'127.0.0.1:{server.ports["gcpmeta"]["http"]}'
answer = requests.get(f'http://{os.environ["GCE_METADATA_HOST"]}/computeMetadata/v1/instance/service-accounts/default/token',
                      headers={'Metadata-Flavor': 'Google'}, timeout=5).json()
ok(encrypt(by=client(Bearer(answer['access_token']))).name, 'metadata server')
same(requests.get(f'http://{os.environ["GCE_METADATA_HOST"]}/computeMetadata/v1/instance/service-accounts/default/token',
                  timeout=5).status_code, 403, 'which wants its header')

# Faults, as Google's client sees them
for fault, status in (('throttle', 'RESOURCE_EXHAUSTED'), ('unavailable', 'UNAVAILABLE')):
    server.fault(service='gcp', operation='decrypt', fault=fault, count=1)
    same(refused(lambda: decrypt(made.ciphertext))[0], status, fault)
server.fault(service='gcp', operation='decrypt', fault='wrong_crc', count=1)
ok(decrypt(made.ciphertext).plaintext_crc32c != crc32c(b'k' * 32), 'a sum of the reply that is wrong')
server.fault(service='gcp', operation='decrypt', fault='short_dek', count=1)
opened = decrypt(made.ciphertext)
same((len(opened.plaintext), opened.plaintext_crc32c), (31, crc32c(opened.plaintext)), 'a short key with a right sum')
server.fault(service='gcp', operation='encrypt', fault='unverified', count=1)
ok(not encrypt().verified_plaintext_crc32c, 'a request whose sums were not verified')
print('1..%d' % __import__('tap').count)
