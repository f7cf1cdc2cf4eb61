"""What is done with statements: once, prepared and executed many times, with
parameters, through a cursor, in a transaction, by COPY, by two sessions at a
time.  A case is a list of steps; a step is a Statement."""

import re
import struct

from changes import FILLED, Changes
from pair import Statement

# Settings that make plans differ, for both twins alike.
SETTINGS = ["enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_nestloop", "enable_hashagg",
            "enable_sort", "enable_material", "enable_bitmapscan"]


class Cases(Changes):
    def case(self):
        """Steps, and the tables that they may have changed."""
        make = self.pick(
            [self.one_query] * 8 + [self.one_change] * 7 + [self.with_parameters] * 3 + [self.changed_with_parameters] * 2
            + [self.prepared, self.cursor, self.current_of, self.transaction, self.copy_out, self.copy_in, self.copy_in_binary, self.truncate, self.settings])
        return make()

    def one_query(self):
        sql, ordered = self.query()
        return [Statement(sql, ordered=ordered, binary=self.chance(0.2))], set()

    def one_change(self):
        sql, table = self.change()
        return [Statement(sql)], {table}

    def with_parameters(self):
        self.params = []
        sql, ordered = self.query()
        step = self.parametrized(sql, ordered)
        return [step], {"customers"} if "rename_customer" in sql else set()

    def changed_with_parameters(self):
        self.params = []
        sql, table = self.change()
        return [self.parametrized(sql, False)], {table}

    def parametrized(self, sql, ordered):
        """With those parameters that have come to be part of it."""
        used = sorted({int(n) for n in re.findall(r"\$(\d+)", sql)})
        sql = re.sub(r"\$(\d+)", lambda m: f"${used.index(int(m[1])) + 1}", sql)
        params = tuple(self.params[n - 1] for n in used)
        self.params = None
        return Statement(sql, params, ordered, self.chance(0.5))

    def prepared(self):
        """Past the sixth execution the plan is a generic one."""
        name = self.name("p")
        table, column = self.pick([("customers", "email"), ("vault", "secret"), ("events", "who")])
        kind = "int" if table == "vault" else "text"
        sql, types = self.pick([
            (f"SELECT id, {column} FROM {table} WHERE tenant_id = $1 AND {column} = $2", f"{kind}, text"),
            (f"SELECT id FROM {table} WHERE tenant_id = $1 AND {column} = ANY ($2)", f"{kind}, text[]"),
            (f"UPDATE {table} SET amount = amount + 1 WHERE tenant_id = $1 AND {column} = $2 RETURNING id, {column}",
             f"{kind}, text"),
            (f"SELECT count(*) FROM {table} WHERE tenant_id = $1 AND ({column} IN ($2, 'a') OR {column} IS NULL)",
             f"{kind}, text")])
        steps = [Statement(f"PREPARE {name} ({types}) AS {sql}")]
        for _ in range(8):
            value = self.literal("text[]" if "[]" in types else "text")
            steps.append(Statement(f"EXECUTE {name} ({self.tenant(kind)}, {value})"))
        return steps + [Statement(f"DEALLOCATE {name}")], {table}

    def cursor(self):
        sql, _ = self.simple()
        name = self.name("c")
        if " ORDER BY " not in sql.rsplit(")", 1)[-1]:
            sql = f"SELECT * FROM customers WHERE {self.condition([self.source('customers')._replace(alias='customers')], 1)} ORDER BY id"
        steps = [Statement("BEGIN"), Statement(f"DECLARE {name} SCROLL CURSOR FOR {sql}")]
        for _ in range(4):
            steps.append(Statement(self.pick(["FETCH 2 FROM ", "FETCH LAST FROM ", "MOVE 1 FROM ", "FETCH PRIOR FROM ",
                                              "FETCH FIRST FROM "]) + name, ordered=True))
        return steps + [Statement("COMMIT")], set()

    def current_of(self):
        table = self.pick(["customers", "vault", "orders"])
        source = self.source(table)
        name = self.name("c")
        return [Statement("BEGIN"),
                Statement(f"DECLARE {name} CURSOR FOR SELECT * FROM {table} {source.alias}"
                          f" WHERE {source.alias}.id = {self.rng.randint(1, 12)} FOR UPDATE"),
                Statement(f"FETCH {name}"),
                Statement(f"UPDATE {table} {source.alias} SET {self.assignments(table, source)} WHERE CURRENT OF {name}"
                          f"{self.returning(source)}"),
                Statement("COMMIT")], {table}

    def transaction(self):
        steps, tables = [Statement(self.pick(["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"]))], set()
        for _ in range(self.rng.randint(1, 3)):
            steps.append(Statement("SAVEPOINT a"))
            sql, table = self.change()
            steps += [Statement(sql), Statement(self.pick(["RELEASE a", "ROLLBACK TO a"])),
                      Statement(self.everything_of(table))]
            tables.add(table)
        return steps + [Statement(self.pick(["COMMIT", "COMMIT", "ROLLBACK"]))], tables

    def everything_of(self, table):
        return f"SELECT * FROM {table}"

    def copy_out(self):
        table = self.pick(list(FILLED))
        query, _ = self.simple()
        what = self.pick([table, f"{table} ({', '.join(self.some(FILLED[table]))})", f"({query})",
                          f"(SELECT * FROM {table})"])
        if table == "events" and what.startswith("events"):
            what = "events_b"
        return [Statement(f"COPY {what} TO STDOUT{self.pick(['', ' (FORMAT csv)', ' (FORMAT binary)', ' (HEADER)'])}")], set()

    def copy_in(self):
        base = self.rng.randint(1000, 9999) * 100
        table = self.pick(["customers", "orders", "events", "vault"])
        lines = []
        for i in range(self.rng.randint(1, 4)):
            tenant = self.rng.randint(1, 3)
            # Rows are checked one by one or many at a time: no two of them may err.
            text = self.pick(["\\N", f"copied {self.name('n')}", f"\\t tab {self.name('n')}"])
            lines.append({
                "customers": f"{base + i}\tt{tenant}\t{text}\t{self.pick(['1', '-1', '99'])}\t2001-02-03\t{{x,y}}\t\\\\x00",
                "orders": f"{base + i}\tt{tenant}\t{text}\t1.25\t2001-02-03",
                "events": f"{base + i}\t{self.pick('abc')}\tt{tenant}\t{text}\t{{\"a\": 1}}",
                "vault": f"{base + i}\t{tenant}\t{text}\t{i}"}[table])
        columns = {"customers": "id, tenant_id, email, age, born, tags, blob", "orders": "id, tenant_id, label, price, paid",
                   "events": "id, kind, tenant_id, who, payload", "vault": "id, tenant_id, secret, amount"}[table]
        return [Statement(f"COPY {table} ({columns}) FROM STDIN", data="".join(l + "\n" for l in lines).encode())], {table}

    def copy_in_binary(self):
        base = self.rng.randint(1000, 9999) * 100
        table = self.pick(["orders", "vault"])
        rows = []
        for i in range(self.rng.randint(1, 4)):
            text = self.pick([None, f"binary {self.name('n')}".encode()])
            tenant = self.rng.randint(1, 3)
            if table == "orders":
                rows.append([struct.pack("!q", base + i), f"t{tenant}".encode(), text, struct.pack("!i", i)])
            else:
                rows.append([struct.pack("!i", base + i), struct.pack("!i", tenant), text, struct.pack("!i", i)])
        columns = {"orders": "id, tenant_id, label, quantity", "vault": "id, tenant_id, secret, amount"}[table]
        return [Statement(f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)", data=binary_rows(rows))], {table}

    def truncate(self):
        table = self.pick(["orders", "orders", "vault", "events, orders"])
        return [Statement("BEGIN"), Statement(f"TRUNCATE {table}{self.pick(['', ' CASCADE', ' RESTART IDENTITY'])}"),
                Statement(f"SELECT count(*) FROM {table.split(',')[0]}"),
                Statement(self.insert("orders")[0]), Statement("SELECT * FROM orders"), Statement("ROLLBACK")], set()

    def settings(self):
        return [Statement(self.pick([
            f"SET {self.pick(SETTINGS)} = {self.pick(['on', 'off'])}",
            f"SET plan_cache_mode = {self.pick(['auto', 'force_generic_plan', 'force_custom_plan'])}",
            f"SET app.tenant = '{self.rng.randint(1, 3)}'",
            f"SET DateStyle = '{self.pick(['ISO, MDY', 'SQL, DMY', 'German', 'Postgres, MDY'])}'",
            f"SET TimeZone = '{self.pick(['UTC', 'America/St_Johns', 'Asia/Tokyo'])}'",
            f"SET IntervalStyle = '{self.pick(['postgres', 'iso_8601', 'sql_standard', 'postgres_verbose'])}'",
            f"SET extra_float_digits = {self.pick([-15, 0, 1, 3])}",
            f"SET bytea_output = '{self.pick(['hex', 'escape'])}'",
            "RESET enable_seqscan"]))], set()

    def contest(self):
        """For two sessions: what the first does in a transaction, and what the
        second does meanwhile, which may have to wait for the first."""
        table = self.pick(["customers", "customers", "events", "vault"])
        number = self.rng.randint(1, 9)
        source = self.source(table)
        first = [f"UPDATE {table} {source.alias} SET {self.assignments(table, source)} WHERE {source.alias}.id = {number}",
                 f"UPDATE {table} SET amount = amount + 1 WHERE id = {number}",
                 f"DELETE FROM {table} WHERE id = {number}"]
        columns = FILLED[table]
        listed = ", ".join(columns)
        unique = "email" if table == "customers" else "secret"
        second = [
            f"UPDATE {table} {source.alias} SET {self.assignments(table, source)} WHERE {source.alias}.id = {number} RETURNING *",
            f"UPDATE {table} SET amount = amount + 1 WHERE id = {number} AND amount < 50 RETURNING id, {listed}",
            f"DELETE FROM {table} WHERE id = {number} RETURNING {listed}",
            f"SELECT {listed} FROM {table} WHERE id = {number} FOR UPDATE",
            f"SELECT id, {listed} FROM {table} WHERE id < 10 FOR UPDATE SKIP LOCKED",
            f"SELECT id FROM {table} WHERE id = {number} FOR SHARE NOWAIT",
            f"MERGE INTO {table} USING (SELECT {number} AS i) s ON id = i"
            f" WHEN MATCHED AND amount > 1 THEN UPDATE SET amount = amount * 2"
            f" WHEN MATCHED THEN UPDATE SET {self.assignments(table, source._replace(alias=table))}"]
        if table != "events":
            first.append(f"INSERT INTO {table} (id, tenant_id, {unique}) VALUES (70, {self.tenant_of(table)}, 'contested')")
            second.append(f"INSERT INTO {table} (id, tenant_id, {unique}) VALUES (71, {self.tenant_of(table)}, 'contested')"
                          f" ON CONFLICT (tenant_id, {unique}) DO UPDATE SET amount = {table}.amount + 10 RETURNING *")
        return (Statement(self.pick(first)), Statement(self.pick(second)),
                Statement(self.pick(["COMMIT", "COMMIT", "ROLLBACK"])), {table})

    def tenant_of(self, table):
        return "1" if table == "vault" else "'t1'"


def binary_rows(rows):
    """As COPY takes them: each a list of fields, as bytes or None."""
    data = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for row in rows:
        data += struct.pack("!h", len(row))
        for field in row:
            data += struct.pack("!i", -1) if field is None else struct.pack("!i", len(field)) + field
    return data + struct.pack("!h", -1)
