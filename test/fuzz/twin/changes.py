"""Random statements that write.  Each method gives SQL; ids are given by the
generator, so that both twins number alike."""

from grammar import TABLES, VALUES
from queries import Queries

# What a client fills in of each table, beside the key and the tenant.
FILLED = {
    "customers": ["name", "email", "ssn", "note", "age", "visits", "balance", "score", "vip", "born", "wakes", "seen",
                  "made", "gap", "ref", "doc", "raw", "addr", "blob", "feeling", "tags", "span", "zip", "code", "amount"],
    "orders": ["label", "price", "paid", "quantity"],
    "events": ["who", "payload", "amount"],
    "vault": ["secret", "amount"],
    "guarded": ["email", "age", "amount"],
    "notes": ["body", "amount"],
}
UNIQUE = {"customers": ("email", "customers_email"), "vault": ("secret", "vault_secret"),
          "guarded": ("email", "customers_email")}
WRITTEN = ["customers"] * 5 + ["orders"] * 2 + ["events"] * 2 + ["vault"]
CASTS = {"text": ""}


class Changes(Queries):
    def __init__(self, rng, version):
        super().__init__(rng)
        self.version = version

    def change(self):
        """SQL that writes, and the tables it may change."""
        if self.chance(0.08):
            # A view, and a table with a rule, which allow less.
            return self.pick([self.update, self.delete, self.insert])(self.pick(["guarded", "notes"]))
        table = self.pick(WRITTEN)
        make = self.pick([
            self.insert, self.insert, self.insert_positional, self.insert_many, self.insert_select, self.upsert, self.upsert, self.update,
            self.update, self.update, self.update_from, self.update_row, self.delete, self.delete_using, self.merge,
            self.merge, self.writable_cte])
        return make(table)

    # --- parts ----------------------------------------------------------------

    def new_id(self):
        self.names += 1
        return str(self.names + 100) if self.chance(0.7) else str(self.rng.randint(1, 60))

    def tenant_value(self, table):
        if table == "vault":
            return str(self.rng.randint(1, 3))
        if self.chance(0.02):
            return self.pick(["NULL", "'t9'"]) if table == "customers" else "NULL"
        return f"'t{self.rng.randint(1, 3)}'"

    def value(self, table, column):
        """A value to store; at times one that is refused."""
        if self.chance(0.15):
            return "NULL"
        kind = TABLES[table][column]
        if column == "zip":
            return "'1234'" if self.chance(0.03) else f"'{self.rng.randint(10000, 10009)}'"
        if column == "ssn":
            return "'123-45-67890'" if self.chance(0.05) else f"'{self.rng.randint(100, 999)}-45-6789'"
        if column == "age":
            return "-1" if self.chance(0.03) else str(self.rng.randint(0, 99))
        if column == "balance":
            return "1e15" if self.chance(0.02) else f"{self.rng.randint(-9, 99)}.125"
        if column == "code":
            return self.pick(["'abc'", "'abcde'", "'abc   '", "''"])
        if column in ("email", "secret") and self.chance(0.6):
            return f"'{self.name('user')}@x.example'"
        return self.literal(kind)

    def id_columns(self, table):
        return ["id", "kind"] if table == "events" else ["id"]

    def row(self, table, columns):
        values = []
        for column in columns:
            if column == "id":
                values.append("DEFAULT" if table == "customers" and self.chance(0.1) else self.new_id())
            elif column == "kind":
                values.append(self.pick(["'a'", "'b'", "'c'"]))
            elif column == "tenant_id":
                values.append(self.tenant_value(table))
            elif column == "customer_id":
                values.append(self.pick(["NULL", str(self.rng.randint(1, 12))]))
            else:
                values.append("DEFAULT" if self.chance(0.05) else self.value(table, column))
        return f"({', '.join(values)})"

    def filled(self, table):
        columns = self.id_columns(table) + ["tenant_id"] + self.some(FILLED[table], 1, len(FILLED[table]))
        if table == "orders":
            columns += ["customer_id"]
            if "label" not in columns and self.chance(0.9):
                columns.append("label")
        if self.chance(0.5):
            self.rng.shuffle(columns)
        return columns

    def returning(self, source, old=None):
        if self.chance(0.5):
            return ""
        if self.chance(0.3) and not old:
            return " RETURNING *"
        outputs = [self.expression(self.pick(list(VALUES)), [source], 1) for _ in range(self.rng.randint(1, 3))]
        if old and self.version >= 18 and self.chance(0.5):
            for column in self.some(FILLED[old], 1, 2):
                outputs.append(f"{self.pick(['old', 'new'])}.{column}")
        return f" RETURNING {', '.join(outputs)}"

    def assignments(self, table, source, others=()):
        """SET items; the tenant now and then."""
        items = []
        for column in self.some(FILLED[table], 1, 4):
            kind = TABLES[table][column]
            if column in UNIQUE.get(table, ()):
                # Nothing that could collide on the way, in whatever order rows come.
                items.append(f"{column} = {source.alias}.{column} || '{self.name('-')}'")
            elif self.chance(0.4):
                items.append(f"{column} = {self.value(table, column)}")
            elif column in ("zip", "ssn", "age", "code", "balance"):
                items.append(f"{column} = {self.pick(['DEFAULT', 'NULL', source.alias + '.' + column])}")
            elif column == "visits" or column == "amount":
                items.append(f"{column} = {source.alias}.{column} + 1")
            else:
                items.append(f"{column} = {self.expression(kind, [source, *others], 1)}")
        if self.chance(0.1):
            items.append(f"tenant_id = {self.tenant_value(table)}")
        return ", ".join(items)

    # --- statements -----------------------------------------------------------

    def insert(self, table):
        columns, source = self.filled(table), self.target(table)
        return (f"INSERT INTO {table} AS {source.alias} ({', '.join(columns)}) VALUES {self.row(table, columns)}"
                f"{self.returning(source, table)}"), table

    def insert_positional(self, table):
        """Without a column list: all columns, or the first ones."""
        columns, source = [c for c in TABLES[table] if c != "twice"], self.target(table)
        count = self.pick([len(columns), self.rng.randint(1, len(columns))])
        return (f"INSERT INTO {table} AS {source.alias} VALUES {self.row(table, columns[:count])}"
                f"{self.returning(source)}"), table

    def insert_many(self, table):
        columns, source = self.filled(table), self.target(table)
        rows = ", ".join(self.row(table, columns) for _ in range(self.rng.randint(2, 5)))
        return (f"INSERT INTO {table} AS {source.alias} ({', '.join(columns)}) VALUES {rows}"
                f"{self.returning(source)}"), table

    def insert_select(self, table):
        source = self.target(table)
        base = self.rng.randint(1000, 9999) * 100
        columns = [c for c in FILLED[table] if c not in ("email", "secret")]
        key = "id, kind" if table == "events" else "id"
        read = self.source(table)
        listed = ", ".join(columns)
        kind = f", {read.alias}.kind" if table == "events" else ""
        picked = ", ".join(f"{read.alias}.{c}" for c in columns)
        return (f"INSERT INTO {table} AS {source.alias} ({key}, tenant_id, {listed})"
                f" SELECT {base} + row_number() OVER (ORDER BY {', '.join(read.order())}){kind},"
                f" {read.alias}.tenant_id, {picked} FROM {table} {read.alias}"
                f" WHERE {self.condition([read], 1)} ORDER BY {', '.join(read.order())} LIMIT 4"
                f"{self.returning(source)}"), table

    def upsert(self, table):
        if table == "orders":
            table = "customers"
        columns, source = self.filled(table), self.target(table)
        unique, constraint = UNIQUE.get(table, (None, None))
        if unique and unique not in columns:
            columns.append(unique)
        arbiter = "(id, kind)" if table == "events" else "(id)"
        if unique and self.chance(0.7):
            arbiter = self.pick([f"(tenant_id, {unique})", f"({unique}, tenant_id)", f"ON CONSTRAINT {constraint}"])
        rows = ", ".join(self.upserted_row(table, columns, unique) for _ in range(self.rng.choice([1, 1, 1, 2, 3])))
        action = "NOTHING"
        if self.chance(0.75):
            sets = [f"{c} = {self.pick([f'EXCLUDED.{c}', self.value(table, c), f'{source.alias}.{c}'])}"
                    for c in self.some([c for c in columns if c in FILLED[table] and c != unique] or ["amount"], 1, 4)]
            if self.chance(0.3):
                sets.append(f"note = {source.alias}.note || EXCLUDED.note" if table == "customers" and
                            not any(s.startswith("note ") for s in sets) else "tenant_id = EXCLUDED.tenant_id")
            action = f"UPDATE SET {', '.join(sets)}"
            if self.chance(0.3):
                excluded = source._replace(alias="EXCLUDED")
                action += f" WHERE {self.condition([source, excluded], 1)}"
        elif self.chance(0.3):
            arbiter = ""
        return (f"INSERT INTO {table} AS {source.alias} ({', '.join(columns)}) VALUES {rows} ON CONFLICT {arbiter}"
                f" DO {action}{self.returning(source, table)}"), table

    def upserted_row(self, table, columns, unique):
        row = self.row(table, columns)
        if unique and self.chance(0.6):
            values = [v for v in VALUES["text"][:4]]
            taken = "'" + self.pick(values) + "'"
            row = "(" + ", ".join(
                taken if c == unique else v for c, v in zip(columns, split_values(row[1:-1]))) + ")"
        return row

    def target(self, table):
        return self.source(table)

    def update(self, table):
        source = self.target(table)
        return (f"UPDATE {table} {source.alias} SET {self.assignments(table, source)}"
                f" WHERE {self.narrow(source)}{self.returning(source, table)}"), table

    def narrow(self, source):
        """Mostly few rows, so that not everything changes all the time."""
        if self.chance(0.5):
            return f"{source.alias}.id {self.pick(['=', '=', '<'])} {self.rng.randint(1, 12)}"
        return self.condition([source], 1)

    def update_row(self, table):
        """Several columns at once, from a row or a subquery."""
        source = self.target(table)
        columns = self.some([c for c in FILLED[table] if c not in UNIQUE.get(table, ()) + ("zip", "ssn", "age", "code",
                                                                                            "balance", "visits")], 2, 3)
        values = ", ".join(self.expression(TABLES[table][c], [source], 1) for c in columns)
        right = self.pick([f"({values})", f"ROW({values})", f"(SELECT {values})"])
        return (f"UPDATE {table} {source.alias} SET ({', '.join(columns)}) = {right}"
                f" WHERE {self.narrow(source)}{self.returning(source)}"), table

    def update_from(self, table):
        """Joined to a table by its key, so that there is one row to take from."""
        source, other = self.target(table), self.source("customers")
        link = "customer_id" if table == "orders" else "id"
        return (f"UPDATE {table} {source.alias} SET {self.assignments(table, source, [other])} FROM customers {other.alias}"
                f" WHERE {other.alias}.id = {source.alias}.{link} AND {self.condition([source, other], 1)}"
                f"{self.returning(source)}"), table

    def delete(self, table):
        source = self.target(table)
        return (f"DELETE FROM {table} {source.alias} WHERE {source.alias}.id > 9 AND {self.condition([source], 1)}"
                f"{self.returning(source, table)}"), table

    def delete_using(self, table):
        source, other = self.target(table), self.source("customers")
        return (f"DELETE FROM {table} {source.alias} USING customers {other.alias} WHERE {source.alias}.id > 9"
                f" AND {other.alias}.id = {source.alias}.id AND {self.condition([source, other], 1)}"
                f"{self.returning(source)}"), table

    def merge(self, table):
        if table == "orders":
            table = "customers"
        source, read = self.target(table), self.source("customers")
        columns = [c for c in self.filled(table) if c not in ("id", "kind", "tenant_id") + UNIQUE.get(table, ())]
        tenant = f"{read.alias}.tenant_id" if table != "vault" else str(self.rng.randint(1, 3))
        kind = ("kind, ", "'a', ") if table == "events" else ("", "")
        values = ", ".join(self.value(table, c) for c in columns)
        insert = (f"INSERT ({kind[0]}id, tenant_id, {', '.join(columns)})"
                  f" VALUES ({kind[1]}{read.alias}.id + {self.pick([0, 10000 + self.names])}, {tenant}, {values})")
        arms = [f"WHEN MATCHED AND {self.condition([source, read], 1)} THEN "
                + self.pick([f"UPDATE SET {self.assignments(table, source, [read])}", "DO NOTHING"])]
        arms.append(f"WHEN MATCHED THEN {self.pick(['DO NOTHING', 'UPDATE SET amount = ' + source.alias + '.amount'])}"
                    if table == "vault" or self.chance(0.7) else "WHEN MATCHED AND "
                    f"{source.alias}.id > 9 THEN DELETE")
        arms.append(f"WHEN NOT MATCHED AND {self.condition([read], 1)} THEN {insert}")
        if self.version >= 17 and self.chance(0.3):
            arms.append(f"WHEN NOT MATCHED BY SOURCE AND {source.alias}.id > 9 THEN UPDATE SET"
                        f" {self.assignments(table, source)}")
        same_kind = f" AND {source.alias}.kind = 'a'" if table == "events" else ""
        sql = (f"MERGE INTO {table} {source.alias} USING customers {read.alias}"
               f" ON {source.alias}.id = {read.alias}.id{same_kind} {' '.join(arms)}")
        if self.version >= 17 and self.chance(0.4):
            sql += f" RETURNING merge_action(), {source.alias}.id, {source.alias}.{self.pick(FILLED[table])}"
        return sql, table

    def writable_cte(self, table):
        source, name = self.target(table), self.name("w")
        columns = self.some(FILLED[table], 1, 3)
        listed = ", ".join(f"{source.alias}.{c}" for c in columns)
        change = self.pick([
            f"UPDATE {table} {source.alias} SET {self.assignments(table, source)} WHERE {self.narrow(source)}",
            f"DELETE FROM {table} {source.alias} WHERE {source.alias}.id > 9 AND {self.condition([source], 1)}"])
        kept = self.pick([f"SELECT * FROM {name}", f"SELECT count(*), count({columns[0]}) FROM {name}",
                          f"SELECT n.*, c.email FROM {name} n LEFT JOIN customers c USING (id)"])
        return f"WITH {name} AS ({change} RETURNING {source.alias}.id, {listed}) {kept}", table


def split_values(row):
    """The values of a row: commas outside of quotes and brackets part them."""
    parts, depth, quoted, start = [], 0, False, 0
    for i, char in enumerate(row):
        if char == "'":
            quoted = not quoted
        elif not quoted and char in "([{":
            depth += 1
        elif not quoted and char in ")]}":
            depth -= 1
        elif not quoted and depth == 0 and char == ",":
            parts.append(row[start:i].strip())
            start = i + 1
    parts.append(row[start:].strip())
    return parts
