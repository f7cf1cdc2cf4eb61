"""The bytes of envelope, as docs/format.md describes them, written from that
page alone: what this opens and makes, the module must make and open.

Shares no code with the module.  Run as a program it opens every value in a
dump:

    envelope_format.py DUMP KEK_FOLDER TABLE:TENANT_COLUMN:COLUMN:CONTEXT...

DUMP is a plain dump by pg_dump; KEK_FOLDER has the files NAME.N.key.  Prints
the number of values opened for each column, and stops at the first that cannot
be opened.
"""

import hmac
import os
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = bytes.fromhex("e14e56")
GCM, SIV = 1, 2
TEXT, BYTEA = 1, 2


def prefixed(data):
    return struct.pack(">I", len(data)) + data


def subkey(dek, use, length=32):
    info = b"envelope/1/" + use.encode()
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(dek)


def key_check(dek, key_id, tenant, purpose):
    message = struct.pack(">q", key_id) + prefixed(tenant.encode()) + prefixed(purpose.encode())
    return hmac.digest(subkey(dek, "check"), message, "sha256")


def header(algorithm, key_id):
    return MAGIC + bytes([algorithm]) + struct.pack(">q", key_id)


def additional_data(algorithm, key_id, tenant, context):
    return header(algorithm, key_id) + prefixed(tenant.encode()) + prefixed(context.encode())


def key_id_of(value):
    return struct.unpack(">q", value[4:12])[0]


def open_value(dek, value, tenant, context):
    """(kind, plaintext) of a sealed value; InvalidTag where it is none."""
    if value[:3] != MAGIC or value[3] not in (GCM, SIV):
        raise ValueError("not a sealed value")
    algorithm = value[3]
    aad = additional_data(algorithm, key_id_of(value), tenant, context)
    iv, body = value[12:28], value[28:]
    if algorithm == GCM:
        opened = AESGCM(subkey(dek, "gcm")).decrypt(iv, body, aad)
    else:
        opened = AESSIV(subkey(dek, "siv", 64)).decrypt(iv + body, [aad])
    return opened[0], opened[1:]


def seal_value(dek, key_id, tenant, context, kind, plaintext, algorithm=GCM, iv=None):
    aad = additional_data(algorithm, key_id, tenant, context)
    body = bytes([kind]) + plaintext
    if algorithm == GCM:
        iv = iv or os.urandom(16)
        return header(algorithm, key_id) + iv + AESGCM(subkey(dek, "gcm")).encrypt(iv, body, aad)
    return header(algorithm, key_id) + AESSIV(subkey(dek, "siv", 64)).encrypt(body, [aad])


def term(dek, context, kind, plaintext, bits):
    message = prefixed(context.encode()) + bytes([kind]) + plaintext
    return hmac.digest(subkey(dek, "index"), message, "sha256")[:bits // 8]


def wrapping_data(version, key_id, tenant):
    return b"envelope/local/1" + struct.pack(">Iq", version, key_id) + prefixed(tenant.encode())


def unwrap_local(keks, wrapped, key_id, tenant):
    """A data key that a local KEK wrapped; keks are its versions' bytes."""
    if len(wrapped) != 65 or wrapped[0] != 1:
        raise ValueError("not wrapped by a local KEK")
    version = struct.unpack(">I", wrapped[1:5])[0]
    return AESGCM(keks[version]).decrypt(wrapped[5:17], wrapped[17:],
                                         wrapping_data(version, key_id, tenant))


def wrap_local(kek, version, dek, key_id, tenant, iv):
    return (b"\x01" + struct.pack(">I", version) + iv +
            AESGCM(kek).encrypt(iv, dek, wrapping_data(version, key_id, tenant)))


def read_keks(folder, name):
    keks = {}
    for file in os.listdir(folder):
        stem, _, rest = file.rpartition(".key")[0].rpartition(".")
        if file.endswith(".key") and stem == name:
            with open(os.path.join(folder, file), "rb") as kek:
                keks[int(rest)] = kek.read()
    return keks


def copy_field(field):
    """A field of COPY's text format; None where it is null."""
    if field == r"\N":
        return None
    return field.replace(r"\\", "\\") if field.startswith(r"\\x") else field


def rows_of_dump(path):
    """(table, row as a dict of texts) of all COPY blocks of a plain dump."""
    table = columns = None
    with open(path, encoding="utf-8") as dump:
        for line in dump:
            line = line.rstrip("\n")
            if table is None and line.startswith("COPY "):
                table = line.split()[1]
                columns = [c.strip().strip('"') for c in
                           line[line.index("(") + 1:line.index(")")].split(",")]
            elif line == r"\.":
                table = None
            elif table is not None:
                yield table, dict(zip(columns, map(copy_field, line.split("\t"))))


def data_keys(rows, kek_folder):
    """The unwrapped and verified data keys of a dump: id -> (tenant, dek)."""
    uris = {row["name"]: row["uri"] for table, row in rows if table == "envelope.keks"}
    keys = {}
    for table, row in rows:
        if table != "envelope.tenant_keys" or row["wrapped_dek"] is None:
            continue
        key_id, tenant = int(row["key_id"]), row["tenant_id"]
        keks = read_keks(kek_folder, uris[row["kek"]].removeprefix("local://"))
        dek = unwrap_local(keks, bytes.fromhex(row["wrapped_dek"][2:]), key_id, tenant)
        if key_check(dek, key_id, tenant, row["purpose"]) != bytes.fromhex(row["key_check"][2:]):
            raise InvalidTag
        keys[key_id] = (tenant, dek)
    return keys


def open_dump(path, kek_folder, columns):
    """Open every value of the columns: {column: [(tenant, plaintext)]}."""
    rows = list(rows_of_dump(path))
    keys = data_keys(rows, kek_folder)
    opened = {}
    for spec in columns:
        table, tenant_column, column, context = spec.split(":")
        values = opened.setdefault(f"{table}.{column}", [])
        for row_table, row in rows:
            if row_table != table or row[column] is None:
                continue
            value = bytes.fromhex(row[column][2:])
            tenant, dek = keys[key_id_of(value)]
            if tenant != row[tenant_column]:
                raise InvalidTag
            values.append((tenant, open_value(dek, value, tenant, context)[1]))
    return opened


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    for column, values in open_dump(sys.argv[1], sys.argv[2], sys.argv[3:]).items():
        print(f"{column}: {len(values)} values opened")


if __name__ == "__main__":
    main()
