"""The test vectors of docs/format.md: computed anew, and as SQL that has the
server open them.

    vectors_test.py FORMAT_PAGE SCRIPT KEK_FILE

Prints TAP, and writes a script that prints TAP, and the KEK.
"""

import sys

from envelope_format import (GCM, SIV, TEXT, additional_data, key_check, open_value, seal_value,
                             subkey, term, unwrap_local, wrap_local)


def read_vectors(page):
    """The block of NAME = VALUE lines, as a dict."""
    with open(page, encoding="utf-8") as file:
        block = file.read().split("## Test vectors")[1].split("```")[1]
    return dict(line.split(" = ", 1) for line in block.strip().splitlines())


def main():
    page, script, kek_file = sys.argv[1:]
    vectors = read_vectors(page)
    kek, data_key, index_key = (bytes.fromhex(vectors[name]) for name in ("kek", "data_key", "index_key"))
    data_id, index_id = int(vectors["data_key_id"]), int(vectors["index_key_id"])
    tenant, context, plain = vectors["tenant"], vectors["context"], vectors["plaintext"].encode()
    iv, wrapping_iv = bytes.fromhex(vectors["value_iv"]), bytes.fromhex(vectors["data_wrapping_iv"])
    computed = {
        "data_subkey_gcm": subkey(data_key, "gcm"),
        "data_key_check": key_check(data_key, data_id, tenant, "data"),
        "data_wrapped": wrap_local(kek, 1, data_key, data_id, tenant, wrapping_iv),
        "value_additional_data": additional_data(GCM, data_id, tenant, context),
        "value": seal_value(data_key, data_id, tenant, context, TEXT, plain, GCM, iv),
        "index_subkey_siv": subkey(index_key, "siv", 64),
        "index_subkey_index": subkey(index_key, "index"),
        "index_key_check": key_check(index_key, index_id, tenant, "index"),
        "index_wrapped": wrap_local(kek, 1, index_key, index_id, tenant,
                                    bytes.fromhex(vectors["index_wrapping_iv"])),
        "deterministic_value": seal_value(index_key, index_id, tenant, context, TEXT, plain, SIV),
        "term_256": term(index_key, context, TEXT, plain, 256),
    }
    number = 1
    for name, value in computed.items():
        print(f"{'ok' if value.hex() == vectors[name] else 'not ok'} {number} - the vector {name}")
        number += 1
    opened = open_value(unwrap_local({1: kek}, computed["data_wrapped"], data_id, tenant),
                        computed["value"], tenant, context)
    print(f"{'ok' if opened == (TEXT, plain) else 'not ok'} {number} - the vectors open")
    number += 1

    with open(kek_file, "wb") as out:
        out.write(kek)
    with open(script, "w", encoding="utf-8") as out:
        out.write(f"""INSERT INTO envelope.keks (name, uri) VALUES ('vectors', 'local://vectors');
INSERT INTO envelope.tenants (tenant_id, kek) VALUES ('{tenant}', 'vectors');
INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, kek_version, wrapped_dek, key_check, state) VALUES
    ({data_id}, '{tenant}', 'data', 'vectors', '1', '\\x{vectors['data_wrapped']}', '\\x{vectors['data_key_check']}', 'active'),
    ({index_id}, '{tenant}', 'index', 'vectors', '1', '\\x{vectors['index_wrapped']}', '\\x{vectors['index_key_check']}', 'active');
""")
        for what, test in (
                ("opens the vector value",
                 f"envelope_decrypt('{tenant}', '\\x{vectors['value']}', '{context}') = '{plain.decode()}'"),
                ("makes the vector deterministic_value",
                 f"envelope_encrypt_deterministic('{tenant}', '{plain.decode()}', '{context}') = '\\x{vectors['deterministic_value']}'"),
                ("makes the vector term_256",
                 f"envelope_blind_index('{tenant}', '{plain.decode()}', '{context}', 256) = '\\x{vectors['term_256']}'")):
            out.write(f"SELECT CASE WHEN {test} THEN 'ok' ELSE 'not ok' END || ' {number} - the server {what}';\n")
            number += 1


main()
