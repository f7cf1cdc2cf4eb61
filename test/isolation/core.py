"""PostgreSQL's isolation tests, made ones about protected tables.

core.py SPECS FOLDER: for each test that is listed here, writes to FOLDER the one of
SPECS with one more step of preparation, which protects tables.  What the test
does, and what it should print, stays.  Prints their names.

A column that is there serves as the tenant's: so no table, and no answer, has a
column more than PostgreSQL's own."""

import pathlib
import re
import sys


def computed(table, column, value):
    """A generated column reads what cannot be protected then; a trigger does as well."""
    return f"""
        ALTER TABLE {table} ALTER COLUMN {column} DROP EXPRESSION;
        CREATE OR REPLACE FUNCTION compute_{table}() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN new.{column} := {value}; RETURN new; END';
        CREATE TRIGGER compute BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION compute_{table}();"""


# Of each test: what has to be done before, and tables as "table tenant column...".
TESTS = {
    "eval-plan-qual": (
        computed("accounts", "balance2", "new.balance * 2") + computed("parttbl", "d", "new.a + new.b + CASE new.a WHEN 2 THEN 1000 ELSE 0 END"),
        ["accounts accountid balance balance2", "accounts_ext accountid balance other newcol newcol2",
         "table_a id value", "table_b id value", "jointest id data", "parttbl a b c d", "another_parttbl a b c"]),
    "eval-plan-qual-trigger": ("", ["trigtest key data"]),
    "insert-conflict-do-nothing": ("", ["ints key val"]),
    "insert-conflict-do-nothing-2": (
        "ALTER TABLE ints DROP CONSTRAINT ints_pkey, ADD PRIMARY KEY (key);", ["ints key val"]),
    "insert-conflict-do-update": ("", ["upsert key val"]),
    "insert-conflict-do-update-2": (
        "DROP INDEX upsert_lower_payload_idx; CREATE UNIQUE INDEX ON upsert (lower(key));", ["upsert key payload"]),
    "insert-conflict-do-update-3": ("", ["colors key color is_active"]),
    "insert-conflict-do-update-4": ("", ["upsert i j k"]),
    "insert-conflict-specconflict": ("", ["upserttest key data"]),
    "merge-delete": ("", ["target key val", "target_pa key val", "target_tg key val"]),
    "merge-insert-update": ("", ["target key val"]),
    "merge-join": ("", ["tgt id val", "src id val"]),
    "merge-match-recheck": (
        "", ["target key balance status val", "target_pa key status val", "target_tg key balance status val"]),
    "merge-update": ("", ["target key val", "pa_target key val"]),
    "partition-key-update-1": ("", ["foo a b", "footrg a b", "foo_range_parted a b"]),
    "partition-key-update-2": ("", ["foo a b"]),
    "partition-key-update-3": ("", ["foo a b"]),
    "partition-key-update-4": ("", ["foo a b"]),
}


def protect(words):
    table, tenant, *columns = words.split()
    names = ", ".join(f"'{column}'" for column in columns)
    return f"PERFORM envelope_protect('{table}', '{tenant}', ARRAY[{names}]::name[]);"


def forget_size(words):
    """MERGE prints rows as it joins them: the planner must know as little of the new heap
    as it did of the old one."""
    table = words.split()[0]
    return f"""UPDATE pg_class SET relpages = 0, reltuples = -1
        WHERE oid = '{table}'::regclass OR oid IN (SELECT relid FROM pg_partition_tree('{table}') WHERE isleaf);"""


def transform(spec, before, steps):
    """Its setup blocks come first; ours comes behind them.  (What returns rows would be
    printed.)"""
    place = re.search(r"^(teardown|session)\b", spec, re.MULTILINE).start()
    steps = "\n".join(steps)
    return f"{spec[:place]}setup {{\n{before}\nDO $envelope$ BEGIN\n{steps}\nEND $envelope$;\n}}\n\n{spec[place:]}"


def main():
    specs, folder = map(pathlib.Path, sys.argv[1:])
    for name, (before, tables) in TESTS.items():
        steps = [protect(table) for table in tables]
        if name.startswith("merge"):
            steps += [forget_size(table) for table in tables]
        (folder / f"{name}.spec").write_text(transform((specs / f"{name}.spec").read_text(), before, steps))
        print(name)


main()
