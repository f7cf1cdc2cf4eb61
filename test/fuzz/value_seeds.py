"""Seeds for value_fuzzer.c: values that open under its keys, and their likes.

    value_seeds.py FOLDER
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
from envelope_format import BYTEA, GCM, SIV, TEXT, seal_value		# noqa: E402

KEYS = {GCM: (bytes(range(0x20, 0x40)), 72623859790382856),
        SIV: (bytes(range(0x40, 0x60)), 1230066625199609624)}


def main():
    folder = sys.argv[1]
    for algorithm, (key, key_id) in KEYS.items():
        for size in (0, 1, 15, 16, 17, 1000):
            for kind in (TEXT, BYTEA):
                value = seal_value(key, key_id, "acme", "customers.ssn", kind, b"x" * size, algorithm)
                name = os.path.join(folder, f"{algorithm}-{kind}-{size}")
                for suffix, data in (("", value), ("-short", value[:-1]), ("-long", value + b"\0")):
                    with open(name + suffix, "wb") as file:
                        file.write(data)


main()
