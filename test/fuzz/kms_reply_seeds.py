"""Seeds for kms_reply_fuzzer.c: replies as the KMSs send them.

    kms_reply_seeds.py FOLDER
"""

import base64
import json
import os
import sys

AWS, GCP, VAULT = 0, 1, 2
UNWRAP, GENERATE, WRAP, REWRAP = 0, 1, 2, 3
STATUSES = [200, 400, 401, 403, 404, 412, 429, 500, 503, 302]
KEY = base64.b64encode(bytes(range(32))).decode()
BLOB = base64.b64encode(b"\1" * 150).decode()
ARN = "arn:aws:kms:eu-central-1:111122223333:key/k"
NAME = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7"

REPLIES = [
    (AWS, UNWRAP, 200, {"KeyId": ARN, "Plaintext": KEY, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
    (AWS, GENERATE, 200, {"KeyId": ARN, "Plaintext": KEY, "CiphertextBlob": BLOB}),
    (AWS, REWRAP, 200, {"KeyId": ARN, "SourceKeyId": ARN, "CiphertextBlob": BLOB}),
    (AWS, UNWRAP, 400, {"__type": "DisabledException", "message": ARN + " is disabled."}),
    (AWS, UNWRAP, 400, {"__type": "com.amazonaws.kms#ThrottlingException:http://x", "Message": "Rate exceeded"}),
    (GCP, UNWRAP, 200, {"plaintext": KEY, "plaintextCrc32c": "2324772240", "usedPrimary": True}),
    (GCP, WRAP, 200, {"name": NAME, "ciphertext": BLOB, "ciphertextCrc32c": "1", "verifiedPlaintextCrc32c": True,
                      "verifiedAdditionalAuthenticatedDataCrc32c": True}),
    (GCP, UNWRAP, 400, {"error": {"code": 400, "message": "m", "status": "FAILED_PRECONDITION",
                                  "details": [{"@type": "t", "violations": []}]}}),
    (VAULT, UNWRAP, 200, {"request_id": "r", "data": {"plaintext": KEY}}),
    (VAULT, GENERATE, 200, {"request_id": "r", "data": {"plaintext": KEY, "ciphertext": "vault:v3:" + BLOB}}),
    (VAULT, REWRAP, 200, {"data": {"ciphertext": "vault:v12:" + BLOB, "key_version": 12}}),
    (VAULT, UNWRAP, 400, {"errors": ["cipher: message authentication failed"]}),
    (VAULT, UNWRAP, 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}),
    (VAULT, UNWRAP, 503, {"errors": ["Vault is sealed"]}),
]
BATCH = {"data": {"batch_results": [{"plaintext": KEY}, {"error": "encryption key not found"}]}}


def write(folder, name, provider, operation, status, tasks, body):
    first = operation << 4
    while first % 3 != provider:
        first += 1
    second = (tasks - 1) << 4
    while STATUSES[second % len(STATUSES)] != status:
        second += 1
        assert second >> 4 == tasks - 1
    with open(os.path.join(folder, name), "wb") as file:
        file.write(bytes([first, second]) + body)


def main():
    folder = sys.argv[1]
    for number, (provider, operation, status, body) in enumerate(REPLIES):
        write(folder, str(number), provider, operation, status, 1, json.dumps(body).encode())
    for status in (200, 400):
        write(folder, f"batch-{status}", VAULT, UNWRAP, status, 2, json.dumps(BATCH).encode())
    for provider in (AWS, GCP, VAULT):
        write(folder, f"html-{provider}", provider, UNWRAP, 403, 1, b"<html>Forbidden</html>")
        write(folder, f"deep-{provider}", provider, UNWRAP, 200, 1, b"[" * 3000)


main()
