"""Open every value of a dump, and make values for the server to open.

    format_test.py DUMP KEK_FOLDER SCRIPT

The dump is that of test/suites/format.sh.  Writes to SCRIPT the SQL that opens
what was made here.  Both print TAP.
"""

import sys

from envelope_format import (BYTEA, GCM, SIV, TEXT, data_keys, key_id_of,
                             open_dump, rows_of_dump, seal_value, term)

TABLE = "public.customers"
FIRST = 7					# known_answers.py has printed six


def main():
    dump, keks, script = sys.argv[1:]
    rows = list(rows_of_dump(dump))
    customers = [row for table, row in rows if table == TABLE]
    keys = data_keys(rows, keks)
    number = FIRST

    def report(passed, what):
        nonlocal number
        print(f"{'ok' if passed else 'not ok'} {number} - {what}")
        number += 1

    report(len(customers) == 201 and len(keys) == 8, "the dump has all rows and keys")
    opened = open_dump(dump, keks, [f"{TABLE}:tenant:a:public.customers.a",
                                    f"{TABLE}:tenant:b:", f"{TABLE}:tenant:d:ctx ü"])
    for column, values in opened.items():
        report([plain.decode() for _, plain in values] == [row["plain"] for row in customers],
               f"every value of {column} opens outside the server")

    index_key = {}
    for row in customers:
        index_key[row["tenant"]] = key_id_of(bytes.fromhex(row["d"][2:]))
    report(all(term(keys[index_key[row["tenant"]]][1], "ctx ü", TEXT, row["plain"].encode(), 256)
               == bytes.fromhex(row["term"][2:]) for row in customers),
           "every term is the one that is computed outside the server")
    report(all(seal_value(keys[index_key[row["tenant"]]][1], index_key[row["tenant"]], row["tenant"],
                          "ctx ü", TEXT, row["plain"].encode(), SIV) == bytes.fromhex(row["d"][2:])
               for row in customers),
           "every deterministic value is the one that is made outside the server")

    with open(script, "w", encoding="utf-8") as out:
        for what, function, column, kind, algorithm in (
                ("text", "envelope_decrypt", "a", TEXT, GCM),
                ("bytea", "envelope_decrypt_bytea", "b", BYTEA, GCM),
                ("deterministic", "envelope_decrypt", "d", TEXT, SIV)):
            row = customers[60]
            key_id = key_id_of(bytes.fromhex(row[column][2:]))
            made = seal_value(keys[key_id][1], key_id, row["tenant"], "made", kind,
                              "made outside ü€😀".encode(), algorithm)
            expected = "made outside ü€😀" if kind == TEXT else \
                "\\x" + "made outside ü€😀".encode().hex()
            out.write(f"SELECT CASE {function}('{row['tenant']}', '\\x{made.hex()}', 'made') "
                      f"WHEN '{expected}' THEN 'ok' ELSE 'not ok' END "
                      f"|| ' {number} - a {what} value that was made outside opens in the server';\n")
            number += 1


main()
