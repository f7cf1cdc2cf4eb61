"""Is the library, by which the module is judged, itself right?  Published
answers for the primitives of docs/format.md: NIST's for AES-256-GCM with IVs
that are not 12 bytes long, RFC 5297's kind for AES-SIV, RFC 5869's for HKDF,
RFC 4231's for HMAC.  Prints TAP.
"""

import hmac
import os
import re

import cryptography_vectors
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FOLDER = os.path.dirname(cryptography_vectors.__file__)


def records(*path):
    """The records "NAME = hex" of a file of vectors, as dicts."""
    record = {}
    with open(os.path.join(FOLDER, *path)) as file:
        for line in file:
            match = re.match(r"\s*(\w+)\s*=\s*(\S*)", line)
            if match:
                name, value = match.group(1).lower(), match.group(2)
                if name in ("count", "len") and record:
                    yield record
                    record = {}
                record[name] = value
    yield record


def unhex(record, name):
    return bytes.fromhex(record.get(name, ""))


def gcm():
    checked = 0
    for r in records("ciphers", "AES", "GCM", "gcmEncryptExtIV256.rsp"):
        if "tag" not in r or len(r["tag"]) != 32 or len(r["iv"]) in (2, 24):
            continue
        made = AESGCM(unhex(r, "key")).encrypt(unhex(r, "iv"), unhex(r, "pt"), unhex(r, "aad"))
        assert made == unhex(r, "ct") + unhex(r, "tag"), r
        checked += 1
    return checked


def siv():
    checked = 0
    for r in records("ciphers", "AES", "SIV", "openssl.txt"):
        if len(r.get("key", "")) != 128 or "aad2" in r:
            continue
        made = AESSIV(unhex(r, "key")).encrypt(unhex(r, "plaintext"), [unhex(r, "aad")])
        assert made == unhex(r, "tag") + unhex(r, "ciphertext"), r
        checked += 1
    return checked


def hkdf():
    checked = 0
    for r in records("KDF", "rfc-5869-HKDF-SHA256.txt"):
        if "okm" not in r:
            continue
        made = HKDF(algorithm=hashes.SHA256(), length=int(r["l"]), salt=unhex(r, "salt"),
                    info=unhex(r, "info")).derive(unhex(r, "ikm"))
        assert made == unhex(r, "okm"), r
        checked += 1
    return checked


def hmac_sha256():
    checked = 0
    for r in records("HMAC", "rfc-4231-sha256.txt"):
        if "md" not in r:
            continue
        assert hmac.digest(unhex(r, "key"), unhex(r, "msg"), "sha256") == unhex(r, "md"), r
        checked += 1
    return checked


for number, test in enumerate((gcm, siv, hkdf, hmac_sha256), 1):
    try:
        count = test()
        result = "ok" if count > 0 else "not ok"
    except Exception as error:	# noqa: BLE001 - whatever it is, it failed
        result, count = "not ok", f"{type(error).__name__} after some"
    print(f"{result} {number} - {test.__name__}: {count} published answers")
