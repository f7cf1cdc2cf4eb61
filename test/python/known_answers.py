"""Is the library, by which the module is judged, itself right?  Published
answers for the primitives of docs/format.md: NIST's for AES-256-GCM with IVs
that are not 12 bytes long, RFC 5297's and OpenSSL's for AES-SIV, RFC 5869's for
HKDF, RFC 4231's for HMAC.  NIST published none for IVs of 16 bytes: these are
answered by GCM as SP 800-38D writes it down, which has to know NIST's answers
too.  Prints TAP.
"""

import hmac
import os
import re

import cryptography_vectors
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
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


def nist_gcm():
    """NIST's records whose IV is not of 12 bytes and whose tag is of 16."""
    for r in records("ciphers", "AES", "GCM", "gcmEncryptExtIV256.rsp"):
        if "tag" in r and len(r["tag"]) == 32 and len(r["iv"]) != 24:
            yield (unhex(r, "key"), unhex(r, "iv"), unhex(r, "aad"), unhex(r, "pt"),
                   unhex(r, "ct") + unhex(r, "tag"))


def gcm():
    checked = 0
    for key, iv, aad, plaintext, answer in nist_gcm():
        if len(iv) < 8:			# fewer bytes the library does not take
            continue
        assert AESGCM(key).encrypt(iv, plaintext, aad) == answer, iv.hex()
        checked += 1
    return checked


def ghash(h, data):
    """SP 800-38D, algorithms 1 and 2; the first bit is the highest one."""
    y = 0
    for at in range(0, len(data), 16):
        x, z, v = y ^ int.from_bytes(data[at:at + 16], "big"), 0, h
        for bit in range(127, -1, -1):
            z ^= v if x >> bit & 1 else 0
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        y = z
    return y.to_bytes(16, "big")


def written_down_gcm(key, iv, aad, plaintext):
    """SP 800-38D, algorithm 4, for IVs that are not of 12 bytes."""
    def ecb(block):
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)

    def padded(data):
        return data + bytes(-len(data) % 16)

    def bits(data):
        return (8 * len(data)).to_bytes(8, "big")

    def after(counter, n):
        low = (int.from_bytes(counter[12:], "big") + n) % 2**32
        return counter[:12] + low.to_bytes(4, "big")

    h = int.from_bytes(ecb(bytes(16)), "big")
    first = ghash(h, padded(iv) + bytes(8) + bits(iv))
    stream = b"".join(ecb(after(first, n + 1)) for n in range((len(plaintext) + 15) // 16))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream))
    hashed = ghash(h, padded(aad) + padded(ciphertext) + bits(aad) + bits(ciphertext))
    return ciphertext + bytes(a ^ b for a, b in zip(hashed, ecb(first)))


def gcm_as_written_down():
    checked = 0
    for key, iv, aad, plaintext, answer in nist_gcm():
        assert written_down_gcm(key, iv, aad, plaintext) == answer, iv.hex()
        checked += 1
    return checked


def gcm_with_16_bytes():
    sizes = (0, 1, 15, 16, 17, 33, 100)
    for size in sizes:
        key, iv = os.urandom(32), os.urandom(16)
        aad, plaintext = os.urandom(size), os.urandom(size)
        assert (AESGCM(key).encrypt(iv, plaintext, aad) ==
                written_down_gcm(key, iv, aad, plaintext)), size
    return len(sizes)


def siv():
    checked = 0
    for r in records("ciphers", "AES", "SIV", "openssl.txt"):
        if "plaintext" not in r:
            continue
        data = [unhex(r, name) for name in ("aad", "aad2", "aad3") if name in r]
        made = AESSIV(unhex(r, "key")).encrypt(unhex(r, "plaintext"), data)
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


TESTS = (gcm, gcm_as_written_down, gcm_with_16_bytes, siv, hkdf, hmac_sha256)

for number, test in enumerate(TESTS, 1):
    try:
        count = test()
        result = "ok" if count > 0 else "not ok"
    except Exception as error:	# noqa: BLE001 - whatever it is, it failed
        result, count = "not ok", f"{type(error).__name__} after some"
    print(f"{result} {number} - {test.__name__}: {count} answers")
