"""Does a protected table answer as its plaintext twin does?

Generates statements from a seed, executes each on both, and compares what a
client can see of the answers, and after each change what the tables hold.  A
statement with two answers is printed, made shorter where that is possible, with
the seed and the number that lead to it again:

    twin.py --seed 7 --count 500
    twin.py --seed 7 --count 321 --from 320      # only the last two are shown

The server is the one that PGHOST and PGPORT name; its database "twin" is made
anew.  Without --protect both twins stay as they are, which tests this program.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter

from cases import Cases
from grammar import TABLES as COLUMNS
from minimise import minimise
from pair import Difference, Pair, Session, Statement, row_differences
from setup import make_database, psql

TABLES = ("customers", "orders", "events", "vault", "notes", "journal")
# What a statement on one table may change in others, by cascades and triggers.
FOLLOWS = {"customers": ("customers", "orders", "journal"), "orders": ("orders", "journal"),
           "guarded": ("customers", "orders", "journal"), "notes": ("notes", "journal")}
ORDER = {"journal": "op, was, now", "events": "id, kind"}
PATIENCE = 30


class Fuzzer:
    def __init__(self, seed, first, verbose):
        self.seed, self.first, self.verbose = seed, first, verbose
        conninfo = "dbname=twin user=app"
        self.pair, self.other = Pair(conninfo), Pair(conninfo)
        self.watcher = Session("dbname=twin user=postgres", "public")
        version = self.pair.plain.conn.server_version // 10000
        self.cases = Cases(random.Random(seed), version)
        self.differences = 0
        self.skip = None
        self.done = {"statements": 0, "changes": 0}
        self.errors = Counter()

    def start(self):
        for pair in (self.pair, self.other):
            pair.run(Statement("SET app.tenant = '1'"))
        for number in range(1, 13):
            sql, _ = self.cases.insert("customers")
            self.step(Statement(sql), 0)
        for tenant in (1, 2, 3):
            self.pair.run(Statement(f"SET app.tenant = '{tenant}'"))
            for _ in range(4):
                for table in ("orders", "events", "vault", "notes"):
                    self.step(Statement(self.cases.insert(table)[0]), 0)
        for table in TABLES:
            self.check(table, 0)

    def step(self, statement, number):
        """One statement on both twins; counts, and tells of a difference."""
        if self.skip and self.skip.search(statement.sql):
            return
        if self.verbose and number >= self.first:
            print(f"-- {number}\n{statement.sql}; {statement.params or ''}", flush=True)
        self.done["statements"] += 1
        try:
            outcome = self.pair.run(statement)
        except Difference as difference:
            self.tell(difference, number)
            return
        if outcome.sqlstate != "00000":
            self.errors[outcome.sqlstate] += 1
            if self.verbose and number >= self.first:
                print(f"-- {outcome.sqlstate} {outcome.message}")

    def tell(self, difference, number):
        self.differences += 1
        print(f"# seed {self.seed}, statement {number}: two answers\n{difference.explain()}", flush=True)
        for session in (self.pair.plain, self.pair.sealed, self.other.plain, self.other.sealed):
            session.run(Statement("ROLLBACK"))
        plain, sealed = difference.plain, difference.sealed

        def still(candidate):
            try:
                one, other = self.pair.try_both(candidate)
            except RuntimeError:
                return False
            return (one.sqlstate, other.sqlstate) == (plain.sqlstate, sealed.sqlstate) and \
                one.comparable(False) != other.comparable(False)
        if still(difference.statement):
            print(f"  shorter: {minimise(difference.statement, still).sql}", flush=True)

    def check(self, table, number):
        """The same rows in both, seen by somebody who sees all of them."""
        columns = ", ".join(COLUMNS.get(table, ("op", "was", "now")))
        query = f"SELECT {columns} FROM {{}}.{table} ORDER BY {ORDER.get(table, 'id')}"
        rows = [self.watcher.must(query.format(schema)) for schema in ("plain", "sealed")]
        if rows[0] != rows[1]:
            self.differences += 1
            print(f"# seed {self.seed}, statement {number}: {table} differs", flush=True)
            print("\n".join(f"  {line}" for line in row_differences(*rows)), flush=True)
            raise SystemExit("what follows would mean nothing")

    def contest(self, number):
        """Two sessions of each twin, one of which may wait for the other."""
        first, second, end, tables = self.cases.contest()
        if self.skip and self.skip.search(f"{first.sql} {second.sql}"):
            return tables
        for pair in (self.pair, self.other):
            pair.run(Statement("SET app.tenant = '1'"))
        if self.verbose and number >= self.first:
            print(f"-- {number}\n{first.sql}; -- meanwhile\n{second.sql}; -- then\n{end.sql};", flush=True)
        try:
            self.pair.run(Statement("BEGIN"))
            self.pair.run(first)
            self.other.start(second)
            until = time.time() + PATIENCE
            while None in (settled := self.other.settled(self.watcher)):
                if time.time() > until:
                    raise SystemExit(f"# seed {self.seed}, statement {number}: one twin neither waits nor answers")
                time.sleep(0.002)
            if settled == (False, True):
                raise SystemExit(f"# seed {self.seed}, statement {number}: only the plaintext twin waits")
            if settled == (True, False):
                # A trigger locks the row before constraints are looked at.
                end = Statement("ROLLBACK")
            self.pair.run(end)
            self.other.wait(second)
        except Difference as difference:
            self.tell(difference, number)
        self.done["statements"] += 2
        return tables

    def run(self, count):
        self.start()
        for number in range(1, count + 1):
            if self.cases.chance(0.04):
                tables = self.contest(number)
            else:
                steps, tables = self.cases.case()
                for statement in steps:
                    self.step(statement, number)
            if tables:
                self.done["changes"] += 1
                for table in {f for t in tables for f in FOLLOWS.get(t, (t,))}:
                    self.check(table, number)
            if number % 50 == 0:
                self.shrink(number)
            if self.differences >= 5:
                print("# that is enough")
                break

    def shrink(self, number):
        """Keep the tables small."""
        for table in TABLES[:3]:
            self.step(Statement(f"DELETE FROM {table} WHERE id > 12 AND id % 3 <> 0"), number)
        for session in (self.pair.plain, self.pair.sealed):
            session.must("DELETE FROM journal")
        for table in TABLES:
            self.check(table, number)


def carriers_stored(conninfo="dbname=twin user=postgres"):
    """How many carriers hold anything on disk."""
    session = Session(conninfo, "sealed")
    session.must("SET envelope.stored_form = on")
    total = 0
    for table, columns in (("customers", "email,ssn,note,age,visits,doc,zip"), ("orders", "label,price,paid"),
                           ("events", "who,payload"), ("vault", "secret"), ("notes", "body")):
        (count,), = session.must(f"SELECT count(*) FROM {table} WHERE num_nonnulls({columns}) > 0")
        total += int(count)
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--protect", action="store_true")
    parser.add_argument("--search", action="store_true", help="mostly conditions that an index over terms is for")
    parser.add_argument("--from", dest="first", type=int, default=0, help="print statements from this one on")
    parser.add_argument("--no-triggers", action="store_true", help="drop those of the application")
    parser.add_argument("--skip", metavar="REGEX", help="leave out statements that match, while a known fault hides others")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"# seed {seed}", flush=True)
    make_database("twin", args.protect)
    if args.no_triggers:
        psql("twin", *(a for s in ("plain", "sealed") for t in ("tidy", "note_change")
                       for a in ("-c", f"DROP TRIGGER {t} ON {s}.orders")))
    fuzzer = Fuzzer(seed, args.first, args.verbose or args.first > 0)
    fuzzer.cases.searching = args.search
    fuzzer.skip = re.compile(args.skip) if args.skip else None
    fuzzer.run(args.count)
    errors = ", ".join(f"{count} {state}" for state, count in fuzzer.errors.most_common())
    print(f"# {fuzzer.done['statements']} statements, {fuzzer.done['changes']} of {args.count} cases write, "
          f"{sum(fuzzer.errors.values())} ended in the same error ({errors})", flush=True)
    if args.protect and (stored := carriers_stored()):
        sys.exit(f"{stored} rows store a carrier")
    sys.exit(1 if fuzzer.differences else 0)


main()
