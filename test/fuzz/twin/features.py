"""Run features.txt on a protected table and on its plaintext twin, compare what
comes with what the file expects, and print TAP.  With a file's name the table
of the documentation is written there as well.

    features.py [FILE]
"""

import re
import sys

from pair import Difference, Pair, Session, Statement
from setup import HERE, make_database, psql

DATA = """
INSERT INTO customers (id, tenant_id, name, email, ssn, age, balance, vip, born, doc, feeling, tags, amount) VALUES
	(1, 't1', 'Anna', 'anna@mail.example', '078-05-1120', 41, 12.50, false, '1984-02-29', '{"a": "b"}', 'happy', '{x,y}', 1),
	(2, 't1', 'Ben', 'ben@mail.example', NULL, 17, 99, true, '2008-01-01', NULL, 'sad', NULL, 2),
	(3, 't2', 'Cem', 'anna@mail.example', '219-09-9999', NULL, NULL, NULL, NULL, '[]', NULL, '{}', 3);
INSERT INTO orders (id, customer_id, tenant_id, label, price, paid) VALUES
	(1, 1, 't1', 'book', 9.90, '2024-01-01'), (2, 1, 't1', 'pen', 1, NULL), (3, 2, 't1', 'anna@mail.example', NULL, NULL);
INSERT INTO events VALUES (1, 'a', 't1', 'anna', '{"n": 1}', 1), (2, 'b', 't2', 'ben', NULL, 2);
INSERT INTO vault VALUES (1, 1, 'one'), (2, 2, 'two');
"""
# By these an answer can be told from an error that the twin might give.
REFUSALS = ("0A000", "42501", "VE008")
OUTSIDE = ("VACUUM", "CREATE INDEX CONCURRENTLY", "REINDEX INDEX CONCURRENTLY")


def blocks():
    """(section, verdict expected, version, title, statements) of each block."""
    section = ""
    with open(f"{HERE}/features.txt", encoding="utf-8") as source:
        for part in re.split(r"\n\s*\n", source.read()):
            lines = [line for line in part.splitlines() if not line.startswith("#")]
            if lines and lines[0].startswith("== "):
                section = lines.pop(0)[3:]
            if not lines:
                continue
            verdict, version, title = re.fullmatch(r"-- \[(\w+) ?(\d*)\] (.*)", lines[0]).groups()
            statements = [s.strip() for s in re.split(r";\n", "\n".join(lines[1:]) + "\n") if s.strip()]
            yield section, verdict, int(version or 0), title, [s.removesuffix(";") for s in statements]


def words(outcome):
    said = f"{outcome.sqlstate}: {outcome.message}."
    return " ".join(filter(None, (said, outcome.detail, outcome.hint))).replace("|", "\\|").replace("\n", " ")


def step(sql):
    """A Statement; rows to COPY stand behind <<<, as C writes them."""
    sql, _, data = sql.partition(" <<< ")
    return Statement(sql, data=data.replace("\\t", "\t").replace("\\n", "\n").encode())


def on_both(pair, statements):
    """The verdict, and the words of a refusal or what differs."""
    inside = not statements[0].startswith(OUTSIDE)
    try:
        if inside:
            pair.run(Statement("BEGIN"))
        for sql in statements:
            pair.run(step(sql))
        return "works", ""
    except Difference as difference:
        if difference.sealed.sqlstate in REFUSALS or "00000" == difference.plain.sqlstate != difference.sealed.sqlstate:
            return "refused", words(difference.sealed)
        return "differs", difference.explain()
    finally:
        if inside:
            for session in (pair.plain, pair.sealed):
                session.run(Statement("ROLLBACK"))


def by_protecting(session, statements):
    session.must("BEGIN")
    try:
        for sql in statements:
            outcome = session.run(Statement(sql))
            if outcome.sqlstate != "00000":
                return "refused", words(outcome)
        return "protected", ""
    finally:
        session.must("ROLLBACK")


def describe(verdict, title, said):
    """A line of the documentation's table."""
    what, _, how = title.partition(": ") if verdict == "differs" else (title, "", "")
    if verdict == "refused":
        state, _, message = said.partition(": ")
        return f"| {what} | refused, `{state}`: {message} |"
    return f"| {what} | {'differs' + (': ' + how if how else '') if verdict == 'differs' else 'works'} |"


def main():
    make_database("features")
    psql("features", "-c", "CREATE ROLE reader", ignore="already exists")
    psql("features", "-c", "GRANT USAGE ON SCHEMA plain, sealed TO reader")
    for schema in ("plain", "sealed"):
        psql("features", "-c", f"SET search_path = {schema}, public", "-c", DATA)
    pair = Pair("dbname=features user=owner")
    # A column that is added stands behind the sidecars, and has another number.
    pair.numbered = False
    superuser = Session("dbname=features user=postgres", "sealed")
    version = superuser.conn.server_version // 10000
    number, failed, lines, last = 0, 0, [], None
    for section, expected, since, title, statements in blocks():
        if version < since:
            continue
        number += 1
        if section == "Protecting":
            verdict, said = by_protecting(superuser, statements)
        else:
            verdict, said = on_both(pair, statements)
        failed += verdict != expected
        print(f"{'ok' if verdict == expected else 'not ok'} {number} - {title} ({verdict})", flush=True)
        if verdict != expected:
            print("".join(f"#   {line}\n" for line in said.splitlines()), end="", flush=True)
        if section != last:
            lines += ["", f"## {section}", "", "| | |", "|---|---|"]
            last = section
        lines.append(describe(verdict, title + (f" (since PostgreSQL {since})" if since else ""), said))
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as out:
            out.write(HEADING + "\n".join(lines) + "\n")
    sys.exit(1 if failed else 0)


HEADING = """# What works on a protected table

Each line is the outcome of statements that are executed on a protected table and on
the same table unprotected, from `test/fuzz/twin/features.txt`; *works* means that a client
cannot tell the answers apart: rows, types, errors, counts. This page is written by
`test/suites/features.sh`, and what a refusal says is what the server said.
Nothing that is refused has written anything. [Protected tables](protected-tables.md)
explains what is behind it.
"""

main()
