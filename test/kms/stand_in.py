"""Authenticated encryption from the standard library, for test keys only.

A keystream of HMAC-SHA-256 in counter mode, and a tag over what must match:
enough for a stand-in to refuse what a KMS would refuse.
"""

import hashlib
import hmac
import secrets


def _stream(key, iv, length):
    blocks = (hmac.digest(key, b'stream' + iv + n.to_bytes(4, 'big'), hashlib.sha256)
              for n in range((length + 31) // 32))
    return b''.join(blocks)[:length]


def wrap(key, plaintext, bound):
    iv = secrets.token_bytes(12)
    body = bytes(a ^ b for a, b in zip(plaintext, _stream(key, iv, len(plaintext))))
    return iv + body + hmac.digest(key, b'tag' + len(bound).to_bytes(4, 'big') + bound + iv + body, hashlib.sha256)


def unwrap(key, wrapped, bound):
    """None where it is not what wrap made of the same key and bound."""
    if len(wrapped) < 44:
        return None
    iv, body, tag = wrapped[:12], wrapped[12:-32], wrapped[-32:]
    right = hmac.digest(key, b'tag' + len(bound).to_bytes(4, 'big') + bound + iv + body, hashlib.sha256)
    if not hmac.compare_digest(tag, right):
        return None
    return bytes(a ^ b for a, b in zip(body, _stream(key, iv, len(body))))
