"""Seeds for kms_credential_fuzzer.c: files and replies as they are.

    kms_credential_seeds.py FOLDER
"""

import json
import os
import sys

PROFILES, INI, XML, TIME, AWS, GCP, VAULT = range(7)
STS = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>s/e+c</SecretAccessKey><SessionToken>t==</SessionToken>
<Expiration>2026-01-31T12:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
INI_FILE = """[default]
aws_access_key_id = AKIA
aws_secret_access_key=s/e=c
[profile x]
role_arn = arn:aws:iam::1:role/x
s3 =
  max = 1
# end
"""
KEYS = {"AccessKeyId": "A", "SecretAccessKey": "S", "Token": "T", "Expiration": "2026-01-31T12:00:00.123+01:00"}
EXTERNAL = {"type": "external_account", "audience": "a", "subject_token_type": "t", "token_url": "https://sts/v1/token",
            "service_account_impersonation_url": "https://iam/x:generateAccessToken",
            "credential_source": {"file": "/f", "format": {"type": "json", "subject_token_field_name": "id"}}}
USER = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
ACCOUNT = {"type": "service_account", "client_email": "e", "private_key": "-----BEGIN PRIVATE KEY-----\nAA==\n"}
LOGIN = {"auth": {"client_token": "hvs.x", "lease_duration": 5, "renewable": True}}

INPUTS = [
    (PROFILES, [{"profiles": {"acme": {"hosts": ["vault:8200"], "token": "t"}}}]),
    (INI, [INI_FILE]), (XML, [STS]), (TIME, ["2026-01-31T12:00:00Z"]), (TIME, ["1790000000"]),
    (AWS, [{"aws_access_key_id": "A", "aws_secret_access_key": "S"}, STS]),
    (AWS, [{"role_arn": "r", "web_identity_token_file": "/f"}, "jwt", STS, STS]),
    (AWS, [{}, INI_FILE, INI_FILE, STS]),
    (AWS, [{}, "", "", "token", "role\n", KEYS, STS]),
    (GCP, [{"google_application_credentials": "/f"}, EXTERNAL, {"id": "subject"},
           {"access_token": "a", "expires_in": 3600}, {"accessToken": "b", "expireTime": "2026-01-31T12:00:00Z"}]),
    (GCP, [{"google_application_credentials": "/f"}, USER, {"access_token": "a", "expires_in": "3600"}]),
    (GCP, [{"google_application_credentials": "/f"}, ACCOUNT]),
    (GCP, [{}, {"access_token": "a", "expires_in": 3599.5, "token_type": "Bearer"}]),
    (VAULT, [{"token": "t"}, {"data": {"ttl": 60, "renewable": True}}]),
    (VAULT, [{"role_id": "r", "secret_id": "s"}, LOGIN]),
    (VAULT, [{"kubernetes_role": "r", "jwt_file": "/f"}, "jwt", LOGIN]),
    (VAULT, [{"client_cert": "/c", "client_key": "/k", "cert_role": "r"}, LOGIN]),
]


def main():
    folder = sys.argv[1]
    for number, (kind, parts) in enumerate(INPUTS):
        parts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
        with open(os.path.join(folder, str(number)), "wb") as file:
            file.write(bytes([kind]) + "\0".join(parts).encode())


main()
