"""Random expressions and queries over the tables of schema.sql.

What is generated has one right answer: no clock, no random, nothing that hangs
on the order of a scan, and nothing that fails on one plan and not on another
(no division, no casts of arbitrary text)."""

from typing import NamedTuple

# Literals of each type.  Few, so that rows meet in joins and groups.
VALUES = {
    "text": ["ann@x.example", "bob@x.example", "eve@x.example", "", "Zoë 😀", "o'hara", "a", "none yet"],
    "bpchar": ["abc", "abcde", ""],
    "int": ["0", "1", "2", "17", "42", "99"],
    "bigint": ["1", "2", "5000000000"],
    "numeric": ["0", "1.50", "-3.14", "1234567890.12"],
    "float8": ["0", "1.5", "-2.25", "1e300", "NaN", "0.1"],
    "bool": ["true", "false"],
    "date": ["2001-02-03", "1970-01-01", "2024-02-29", "0044-03-15 BC"],
    "time": ["00:00", "08:30:15.5", "23:59:59"],
    "timestamptz": ["2024-03-31 01:30:00+00", "1999-12-31 23:59:59.123456+00", "infinity"],
    "timestamp": ["2024-03-31 01:30:00", "1999-12-31 23:59:59.123456"],
    "interval": ["1 day", "-2 years 3 mons", "04:05:06.7", "1 mon -1 day"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"],
    "jsonb": ['{"a": "ann@x.example", "n": 2}', "[1, 2, null]", '"x"', "null", "{}"],
    "json": ['{"a" : "b", "a": 1}', "[]"],
    "inet": ["10.0.0.1", "192.168.0.0/24", "::1"],
    "bytea": ["\\x00ff", "\\x", "\\x454e56"],
    "mood": ["sad", "ok", "happy"],
    "text[]": ["{a,b}", "{}", "{NULL,\"x y\"}", "{\"o'hara\"}"],
    "int4range": ["[1,5)", "empty", "(,3]"],
}
SORTABLE = [t for t in VALUES if t != "json"]
NUMBERS = ("int", "bigint", "numeric")

TABLES = {
    "customers": {
        "id": "bigint", "tenant_id": "text", "name": "text", "email": "text", "ssn": "text", "note": "text",
        "age": "int", "visits": "bigint", "balance": "numeric", "score": "float8", "vip": "bool",
        "born": "date", "wakes": "time", "seen": "timestamptz", "made": "timestamp", "gap": "interval",
        "ref": "uuid", "doc": "jsonb", "raw": "json", "addr": "inet", "blob": "bytea", "feeling": "mood",
        "tags": "text[]", "span": "int4range", "zip": "text", "code": "bpchar", "amount": "int", "twice": "int"},
    "orders": {
        "label": "text", "price": "numeric", "paid": "date", "id": "bigint", "customer_id": "bigint",
        "tenant_id": "text", "quantity": "int"},
    "events": {
        "id": "bigint", "kind": "text", "tenant_id": "text", "who": "text", "payload": "jsonb", "amount": "int"},
    "vault": {"id": "int", "tenant_id": "int", "secret": "text", "amount": "int"},
    "tenants": {"tenant_id": "text", "plan": "text"},
    "customer_cards": {
        "id": "bigint", "tenant_id": "text", "email": "text", "name": "text", "born": "date", "amount": "int"},
    "order_lines": {
        "id": "bigint", "tenant_id": "text", "label": "text", "price": "numeric", "email": "text", "age": "int"},
    "guarded": {"id": "bigint", "tenant_id": "text", "email": "text", "age": "int", "ref": "uuid", "amount": "int"},
    "notes": {"id": "bigint", "tenant_id": "text", "body": "text", "amount": "int"},
}
KEYS = {"events": ("id", "kind"), "tenants": ("tenant_id",)}
WEIGHTS = {"customers": 8, "orders": 4, "events": 3, "vault": 2, "tenants": 1, "customer_cards": 2, "order_lines": 2,
           "guarded": 2, "notes": 1}


class Source(NamedTuple):
    """Something in FROM: its alias, its columns' types, which of them are a key."""
    alias: str
    columns: dict
    key: tuple

    def order(self):
        return [f"{self.alias}.{c}" for c in self.key]


class Grammar:
    def __init__(self, rng):
        self.rng = rng
        self.params = None      # a list while literals may become parameters
        self.searching = False  # mostly what an index over terms is for
        self.names = 0

    # --- small things ---------------------------------------------------------

    def chance(self, probability):
        return self.rng.random() < probability

    def pick(self, items):
        return self.rng.choice(list(items))

    def some(self, items, least=1, most=4):
        items = list(items)
        return self.rng.sample(items, min(len(items), self.rng.randint(least, most)))

    def name(self, prefix):
        self.names += 1
        return f"{prefix}{self.names}"

    def table(self, among=None):
        among = list(among or WEIGHTS)
        return self.rng.choices(among, [WEIGHTS[t] for t in among])[0]

    def literal(self, kind):
        value = self.pick(VALUES[kind])
        if self.params is not None and self.chance(0.6):
            self.params.append(value)
            return f"${len(self.params)}::{kind}"
        quoted = "'" + value.replace("'", "''") + "'"
        return f"{quoted}::{kind}"

    # --- expressions ----------------------------------------------------------

    def column(self, kind, scope):
        """A column of that type, or None."""
        found = [f"{s.alias}.{c}" for s in scope for c, t in s.columns.items() if t == kind]
        return self.pick(found) if found else None

    def leaf(self, kind, scope):
        return (self.chance(0.8) and self.column(kind, scope)) or self.literal(kind)

    def expression(self, kind, scope, depth=2):
        if depth <= 0 or self.chance(0.45):
            return self.leaf(kind, scope)
        rule = getattr(self, "make_" + kind.replace("[]", "_array"), None)
        if rule is None or self.chance(0.25):
            return self.any_kind(kind, scope, depth)
        return rule(scope, depth - 1)

    def any_kind(self, kind, scope, depth):
        def sub():
            return self.expression(kind, scope, depth - 1)
        choice = self.rng.randrange(4)
        if choice == 0:
            return f"CASE WHEN {self.condition(scope, depth - 1)} THEN {sub()} ELSE {sub()} END"
        if choice == 1 and kind != "json":
            return f"COALESCE({sub()}, {sub()})"
        if choice == 2 and kind in SORTABLE:
            return f"NULLIF({sub()}, {sub()})"
        return self.scalar_subquery(kind, scope, depth)

    def make_text(self, scope, depth):
        def sub(kind="text"):
            return self.expression(kind, scope, depth)
        return self.pick([
            lambda: f"upper({sub()})", lambda: f"({sub()} || {sub()})", lambda: f"substr({sub()}, 1, 3)",
            lambda: f"md5({sub()})", lambda: f"({sub(self.pick(NUMBERS))})::text",
            lambda: f"({sub(self.pick(['date', 'uuid', 'inet', 'mood', 'interval', 'bytea', 'int4range']))})::text",
            lambda: f"({sub('jsonb')} ->> 'a')", lambda: f"({sub('json')} ->> 'a')",
            lambda: f"({sub('text[]')})[1]", lambda: f"format('%s/%s', {sub()}, {sub('int')})",
            lambda: f"regexp_replace({sub()}, '[aeo]', '*')"])()

    def make_int(self, scope, depth):
        def sub(kind):
            return self.expression(kind, scope, depth)
        return self.pick([
            lambda: f"length({sub('text')})", lambda: f"({sub('int')} % 1000 + {sub('int')} % 1000)",
            lambda: f"extract(year FROM {sub('date')})::int", lambda: f"cardinality({sub('text[]')})",
            lambda: f"octet_length({sub('bytea')})", lambda: f"({sub('text')} IS NULL)::int"])()

    def make_numeric(self, scope, depth):
        return self.pick([
            lambda: f"({self.expression('numeric', scope, depth)} + {self.expression('int', scope, depth)})",
            lambda: f"round({self.expression('numeric', scope, depth)}, 1)"])()

    def make_date(self, scope, depth):
        return f"({self.expression('date', scope, depth)} + {self.expression('int', scope, depth)} % 1000)"

    def make_jsonb(self, scope, depth):
        return self.pick([
            lambda: f"jsonb_build_object('k', {self.expression(self.pick(['text', 'int', 'numeric']), scope, depth)})",
            lambda: f"to_jsonb({self.expression('text', scope, depth)})"])()

    def make_text_array(self, scope, depth):
        return self.pick([
            lambda: f"ARRAY[{self.expression('text', scope, depth)}, {self.expression('text', scope, depth)}]",
            lambda: f"({self.expression('text[]', scope, depth)} || {self.expression('text', scope, depth)})"])()

    def make_bool(self, scope, depth):
        return f"({self.condition(scope, depth)})"

    def scalar_subquery(self, kind, scope, depth):
        """One value: an aggregate over a table, correlated perhaps."""
        table = self.table()
        inner = self.source(table)
        if kind in ("int", "bigint", "numeric", "text", "date", "timestamptz", "float8", "mood", "interval"):
            value = f"{self.pick(['min', 'max'])}({self.expression(kind, [inner], 0)})"
        elif kind == "bool":
            value = f"bool_or({self.expression(kind, [inner], 0)})"
        else:
            value = f"(array_agg({self.expression(kind, [inner], 0)} ORDER BY {', '.join(inner.order())}))[1]"
        return (f"(SELECT {value} FROM {table} {inner.alias}"
                f" WHERE {self.condition([inner] + scope[:1], min(depth - 1, 1))})")

    # --- conditions -----------------------------------------------------------

    def condition(self, scope, depth=2):
        if depth > 0 and self.chance(0.35):
            word = self.pick(["AND", "OR", "AND NOT"])
            return f"({self.condition(scope, depth - 1)} {word} {self.condition(scope, depth - 1)})"
        if self.searching and self.chance(0.8):
            return self.pick([self.search, self.search, self.search, self.which_tenant, self.equal_columns])(scope, depth)
        return self.pick([
            self.comparison, self.comparison, self.search, self.search, self.null_test, self.in_list,
            self.between, self.like, self.exists, self.in_subquery, self.distinct_from])(scope, depth)

    def comparison(self, scope, depth):
        kind = self.pick(SORTABLE)
        return (f"{self.expression(kind, scope, depth - 1)} {self.pick(['=', '<>', '<', '>=', '='])}"
                f" {self.expression(kind, scope, depth - 1)}")

    def search(self, scope, depth):
        """What an index over terms is for: a tenant and values."""
        for s in scope:
            found = [c for c in ("email", "secret", "who", "ref", "age") if c in s.columns]
            if not found or "tenant_id" not in s.columns:
                continue
            column = self.pick(found)
            kind = s.columns[column]
            left, values = f"{s.alias}.{column}", [self.literal(kind) for _ in range(3)]
            tenant = self.of_tenant(s)
            return self.pick([
                lambda: f"{tenant} AND {left} = {values[0]}",
                lambda: f"{values[0]} = {left} AND {tenant}",
                lambda: f"{tenant} AND {left} IN ({', '.join(values)})",
                lambda: f"{tenant} AND {left} = ANY (ARRAY[{', '.join(values)}])",
                lambda: f"{tenant} AND {left} = ANY (ARRAY(SELECT {column} FROM customers WHERE id < 5))"
                        if column in ("email", "ref", "age") else f"{tenant} AND {left} = {values[0]}",
                lambda: f"({s.alias}.tenant_id, {left}) IN (({self.tenant(s.columns['tenant_id'])}, {values[0]}),"
                        f" ({self.tenant(s.columns['tenant_id'])}, {values[1]}))",
                lambda: f"({s.alias}.tenant_id, {left}) = ({self.tenant(s.columns['tenant_id'])}, {values[0]})",
                lambda: f"{tenant} AND ({left} = {values[0]} OR {left} = {values[1]})",
                lambda: f"{tenant} AND {left} = NULL"])()
        return self.comparison(scope, depth)

    def of_tenant(self, source):
        """A condition that says which tenant, or which ones."""
        kind = source.columns["tenant_id"]
        column = f"{source.alias}.tenant_id"
        some = ", ".join(self.tenant(kind) for _ in range(self.rng.randint(1, 3)))
        return self.pick([
            f"{column} = {self.tenant(kind)}", f"{column} = {self.tenant(kind)}", f"{self.tenant(kind)} = {column}",
            f"{column} IN ({some})", f"{column} = ANY (ARRAY[{some}, NULL]::{kind}[])"])

    def which_tenant(self, scope, depth):
        source = self.pick(scope)
        return self.of_tenant(source) if "tenant_id" in source.columns else "true"

    def equal_columns(self, scope, depth):
        one, other = self.pick(scope), self.pick(scope)
        kind = self.pick(["text", "uuid", "int"])
        columns = self.column(kind, [one]), self.column(kind, [other])
        return " = ".join(columns) if all(columns) else "true"

    def tenant(self, kind):
        if self.params is not None and self.chance(0.5):
            self.params.append(str(self.rng.randint(1, 3)) if kind == "int" else f"t{self.rng.randint(1, 3)}")
            return f"${len(self.params)}::{kind}"
        return str(self.rng.randint(1, 3)) if kind == "int" else f"'t{self.rng.randint(1, 4)}'"

    def null_test(self, scope, depth):
        return f"{self.expression(self.pick(VALUES), scope, depth - 1)} IS {self.pick(['', 'NOT '])}NULL"

    def in_list(self, scope, depth):
        kind = self.pick(SORTABLE)
        return (f"{self.expression(kind, scope, depth - 1)} {self.pick(['', 'NOT '])}IN"
                f" ({', '.join(self.leaf(kind, scope) for _ in range(self.rng.randint(1, 3)))})")

    def between(self, scope, depth):
        kind = self.pick(["int", "numeric", "date", "text", "timestamptz"])
        a, b, c = (self.expression(kind, scope, depth - 1) for _ in range(3))
        return f"{a} BETWEEN {self.pick(['', 'SYMMETRIC '])}{b} AND {c}"

    def like(self, scope, depth):
        return (f"{self.expression('text', scope, depth - 1)} {self.pick(['LIKE', 'ILIKE', 'NOT LIKE', '~'])}"
                f" '{self.pick(['a%', '%example', '%o%', 'Z__%'])}'")

    def exists(self, scope, depth):
        table = self.table()
        inner = self.source(table)
        return (f"{self.pick(['', 'NOT '])}EXISTS (SELECT 1 FROM {table} {inner.alias}"
                f" WHERE {self.condition([inner] + scope[:1], min(depth - 1, 1))})")

    def in_subquery(self, scope, depth):
        kind = self.pick(["text", "int", "bigint"])
        table = self.table()
        inner = self.source(table)
        return (f"{self.expression(kind, scope, depth - 1)} {self.pick(['IN', 'IN', 'NOT IN', '= ANY', '<> ALL'])}"
                f" (SELECT {self.leaf(kind, [inner])} FROM {table} {inner.alias}"
                f" WHERE {self.condition([inner], min(depth - 1, 1))})")

    def distinct_from(self, scope, depth):
        kind = self.pick(SORTABLE)
        return (f"{self.expression(kind, scope, depth - 1)} IS {self.pick(['', 'NOT '])}DISTINCT FROM"
                f" {self.expression(kind, scope, depth - 1)}")

    def source(self, table):
        return Source(self.name("r"), TABLES[table], KEYS.get(table, ("id",)))
