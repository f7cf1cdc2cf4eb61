"""Faults of content: changes to the JSON that a service has answered."""

import base64
import json
import secrets

from crc32c import crc32c

BASE64_FIELDS = ('Plaintext', 'CiphertextBlob', 'plaintext', 'ciphertext')
KEY_FIELDS = ('Plaintext', 'plaintext')


def walk(value, change):
    """Call change(object, name) for each member of each object."""
    if isinstance(value, dict):
        for name in list(value):
            change(value, name)
            walk(value.get(name), change)
    elif isinstance(value, list):
        for item in value:
            walk(item, change)


def changed(body, change):
    value = json.loads(body)
    walk(value, change)
    return json.dumps(value).encode()


def replace_keys(body, make):
    """Give other keys than there are; sums over them stay right."""
    def change(holder, name):
        if name in KEY_FIELDS and isinstance(holder[name], str):
            key = make(base64.b64decode(holder[name]))
            holder[name] = base64.b64encode(key).decode()
            if name + 'Crc32c' in holder:
                holder[name + 'Crc32c'] = str(crc32c(key))
    return changed(body, change)


def spoil_base64(body):
    def change(holder, name):
        if name in BASE64_FIELDS and isinstance(holder[name], str):
            holder[name] = '!' + holder[name][1:-3] + '*~'
    return changed(body, change)


def spoil_sums(body):
    def change(holder, name):
        if name.endswith('Crc32c') and not name.startswith('verified'):
            holder[name] = str(int(holder[name]) ^ 1)
    return changed(body, change)


def unverify(body):
    def change(holder, name):
        if name.startswith('verified'):
            holder[name] = False
    return changed(body, change)


def without_keys(body):
    def change(holder, name):
        if name in BASE64_FIELDS:
            del holder[name]
    return changed(body, change)


def of_other_types(body):
    def change(holder, name):
        if not isinstance(holder[name], (dict, list)):
            holder[name] = [{}]
    return changed(body, change)


CHANGES = {
    'wrong_base64': spoil_base64,
    'wrong_crc': spoil_sums,
    'unverified': unverify,
    'short_dek': lambda body: replace_keys(body, lambda key: key[:-1]),
    'long_dek': lambda body: replace_keys(body, lambda key: key + b'x'),
    'empty_dek': lambda body: replace_keys(body, lambda key: b''),
    'wrong_dek': lambda body: replace_keys(body, lambda key: secrets.token_bytes(len(key))),
    'missing': without_keys,
    'wrong_types': of_other_types,
    'overlong': lambda body: body[:-1] + b',"filler":"' + b'A' * (10 << 20) + b'"}',
    'nested': lambda body: b'[' * 1000000 + b']' * 1000000,
    'nested_object': lambda body: b'{"a":' * 200000 + b'1' + b'}' * 200000,
    'not_json': lambda body: b'{"Plaintext": "',
    'empty': lambda body: b'',
    'nul': lambda body: b'{"Plaintext":"\\u0000","plaintext":"\\u0000","data":{"plaintext":"\\u0000"}}',
    'bad_utf8': lambda body: b'{"Plaintext":"\xff\xfe","plaintext":"\xc0\x80","message":"\xed\xa0\x80"}',
    'array': lambda body: b'[' + body + b']',
    'twice': lambda body: body + body,
}
