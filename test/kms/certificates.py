"""A CA of the fault server's own, and certificates by it; openssl makes them.

In the folder:  ca.pem; server.pem (good), expired.pem, wrong_name.pem and
other_ca.pem (of a CA that nobody trusts), client.pem, each with its key in the
same file; service_account.json, for Google.
"""

import json
import os
import subprocess


def openssl(*arguments):
    return subprocess.run(['openssl', *arguments], check=True, capture_output=True, text=True).stdout


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key, self.certificate = self.path('key'), self.path('pem')
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3650',
                '-subj', f'/CN=envelope test {name}', '-keyout', self.key, '-out', self.certificate,
                '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign')

    def path(self, suffix, name=None):
        return os.path.join(self.folder, f'{name or self.name}.{suffix}')

    def give(self, name, subject, alternatives, days=3650, usage='serverAuth'):
        """name.pem: certificate and key."""
        request, extensions = self.path('csr', name), self.path('ext', name)
        with open(extensions, 'w', encoding='ascii') as file:
            file.write(f'subjectAltName={alternatives}\nextendedKeyUsage={usage}\n'
                       'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n')
        openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', f'/CN={subject}',
                '-keyout', self.path('key', name), '-out', request)
        certificate = openssl('x509', '-req', '-in', request, '-CA', self.certificate, '-CAkey', self.key,
                              '-set_serial', str(int.from_bytes(os.urandom(8), 'big')), '-days', str(days),
                              '-extfile', extensions)
        with open(self.path('key', name), encoding='ascii') as key, \
                open(os.open(self.path('pem', name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w',
                     encoding='ascii') as both:
            both.write(certificate + key.read())
        os.remove(request)
        os.remove(extensions)
        return self.path('pem', name)


def make(folder):
    local = 'IP:127.0.0.1,DNS:localhost,DNS:metadata.test'
    authority = Authority(folder, 'ca')
    stranger = Authority(folder, 'stranger')
    return {
        'good': authority.give('server', 'localhost', local),
        'expired': authority.give('expired', 'localhost', local, days=-1),
        'wrong_name': authority.give('wrong_name', 'elsewhere.example', 'DNS:elsewhere.example'),
        'other_ca': stranger.give('other_ca', 'localhost', local),
        'client': authority.give('client', 'envelope-client', 'DNS:envelope-client', usage='clientAuth'),
    }


def service_account(folder, token_uri):
    """A service account's file, as Google gives it; what the token endpoint knows of it."""
    key = openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048')
    modulus = subprocess.run(['openssl', 'rsa', '-noout', '-modulus'], input=key, check=True, capture_output=True,
                             text=True).stdout.strip().partition('=')[2]
    account = {'type': 'service_account', 'project_id': 'test', 'private_key_id': 'f00d', 'private_key': key,
               'client_email': 'envelope@test.iam.gserviceaccount.com', 'client_id': '1', 'token_uri': token_uri}
    path = os.path.join(folder, 'service_account.json')
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w', encoding='ascii') as file:
        json.dump(account, file)
    return {'client_email': account['client_email'], 'token_uri': token_uri, 'modulus': int(modulus, 16)}
