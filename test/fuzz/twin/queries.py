"""Random queries of every shape."""

from grammar import NUMBERS, SORTABLE, VALUES, Grammar, Source


class Queries(Grammar):
    """query() gives SQL and whether the order of its rows counts."""

    def query(self):
        shape = self.pick([
            self.simple, self.simple, self.simple, self.everything, self.grouped, self.grouped, self.by_key,
            self.windows, self.set_operation, self.with_query, self.searched, self.recursive, self.distinct, self.distinct_on,
            self.locking, self.functions, self.by_names, self.whole_row])
        return shape()

    # --- FROM -----------------------------------------------------------------

    def from_clause(self, depth=1):
        """SQL and the sources that it makes."""
        sql, first = self.from_item(depth)
        sources = [first]
        for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2])):
            item, source = self.from_item(depth, sources)
            lateral = item.startswith("LATERAL")
            join = self.pick(["JOIN", "LEFT JOIN"] if lateral else
                             ["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"])
            if join == "CROSS JOIN":
                sql += f" CROSS JOIN {item}"
            else:
                # A full join wants a condition that can be merged or hashed.
                sql += f" {join} {item} ON {self.join_condition(source, sources, join == 'FULL JOIN')}"
            sources.append(source)
        return sql, sources

    def join_condition(self, new, old, equality_only):
        kinds = set(new.columns.values()) & {t for s in old for t in s.columns.values()} & set(SORTABLE)
        if not kinds:
            return "true"
        equal = " = ".join(self.column(k, s) for k in [self.pick(sorted(kinds))] for s in ([new], old))
        if "tenant_id" in new.columns and self.chance(0.4):
            same = [s for s in old if s.columns.get("tenant_id") == new.columns["tenant_id"]]
            if same:
                equal += f" AND {new.alias}.tenant_id = {same[0].alias}.tenant_id"
        if equality_only or self.chance(0.6):
            return equal
        return f"{equal} AND {self.condition([new] + old, 1)}"

    def from_item(self, depth, before=()):
        if depth > 0 and self.chance(0.25):
            lateral = bool(before) and self.chance(0.5)
            alias = self.name("d")
            sql, columns = self.derived(list(before) if lateral else [], depth - 1)
            key = tuple(c for c, t in columns.items() if t != "json")
            return f"{'LATERAL ' if lateral else ''}({sql}) {alias}", Source(alias, columns, key)
        if self.chance(0.06):
            alias = self.name("v")
            rows = ", ".join(f"({self.literal('text')}, {self.literal('int')})" for _ in range(2))
            return f"(VALUES {rows}) {alias} (t, n)", Source(alias, {"t": "text", "n": "int"}, ("t", "n"))
        table = self.table()
        source = self.source(table)
        return f"{table} {source.alias}", source

    def derived(self, outer, depth):
        """A subquery with named columns, and their types."""
        sql, sources = self.from_clause(depth)
        columns, outputs = {}, []
        for i in range(self.rng.randint(1, 4)):
            kind = self.pick(SORTABLE)
            columns[f"c{i}"] = kind
            outputs.append(f"{self.expression(kind, sources + outer, 1)} AS c{i}")
        text = f"SELECT {', '.join(outputs)} FROM {sql} WHERE {self.condition(sources + outer, 1)}"
        if self.chance(0.3):
            text += f" ORDER BY {', '.join(str(i + 1) for i in range(len(columns)))} LIMIT {self.rng.randint(1, 9)}"
        return text, columns

    # --- shapes ---------------------------------------------------------------

    def outputs(self, sources, kinds=VALUES):
        return [self.expression(self.pick(kinds), sources) for _ in range(self.rng.randint(1, 5))]

    def where(self, sources):
        return f" WHERE {self.condition(sources)}" if self.chance(0.75) else ""

    def ordered(self, sql, count):
        """Perhaps with an order, which then is a total one, and a limit."""
        if not self.chance(0.4):
            return sql, False
        numbers = list(range(1, count + 1))
        self.rng.shuffle(numbers)
        sql += " ORDER BY " + ", ".join(
            f"{n} {self.pick(['', 'DESC', 'NULLS FIRST', 'DESC NULLS LAST'])}".strip() for n in numbers)
        if self.chance(0.5):
            sql += self.pick([" LIMIT 5", " OFFSET 2", " LIMIT 3 OFFSET 1", " FETCH FIRST 2 ROWS ONLY"])
        return sql, True

    def simple(self):
        sql, sources = self.from_clause()
        outputs = self.outputs(sources, SORTABLE)
        return self.ordered(f"SELECT {', '.join(outputs)} FROM {sql}{self.where(sources)}", len(outputs))

    def everything(self):
        sql, sources = self.from_clause(depth=0)
        stars = self.pick(["*", ", ".join(f"{s.alias}.*" for s in sources)])
        return f"SELECT {stars} FROM {sql}{self.where(sources)}", False

    def by_names(self):
        table = self.table(["customers", "orders", "events", "vault"])
        return self.pick([
            f"TABLE {table}", f"SELECT * FROM {table}", f"SELECT count(*), count({table}) FROM {table}",
            f"SELECT * FROM {table} NATURAL JOIN tenants" if table != "vault" else "SELECT * FROM vault",
            f"SELECT tableoid::regclass::text, ctid IS NULL, {table}.* FROM {table}",
            "SELECT * FROM customers JOIN orders USING (tenant_id)"]), False

    def whole_row(self):
        source = self.source("customers")
        alias = source.alias
        columns = ", ".join(f"({alias}).{c}" for c in self.some(source.columns))
        return self.pick([
            f"SELECT {columns} FROM customers {alias}{self.where([source])}",
            f"SELECT {columns} FROM (SELECT {alias} FROM customers {alias}{self.where([source])}) s ({alias})",
            f"SELECT {columns} FROM (SELECT {alias} FROM customers {alias} OFFSET 0) {self.name('w')}",
            f"SELECT (a).email, (a).age FROM (SELECT unnest(array_agg({alias})) AS a FROM customers {alias}) s"]), False

    def aggregates(self, sources):
        def expr(kinds):
            return self.expression(self.pick(kinds), sources, 1)
        keys = ", ".join(k for s in sources for k in s.order())
        made = self.pick([
            lambda: "count(*)", lambda: f"count({expr(VALUES)})", lambda: f"count(DISTINCT {expr(SORTABLE)})",
            lambda: f"min({expr(['text', 'int', 'date', 'numeric'])})", lambda: f"max({expr(['text', 'date'])})",
            lambda: f"sum({expr(NUMBERS)})", lambda: f"bool_and({expr(['bool'])})",
            lambda: f"string_agg({expr(['text'])}, ',' ORDER BY {keys})",
            lambda: f"array_agg({expr(['text', 'int', 'uuid'])} ORDER BY {keys})",
            lambda: f"jsonb_agg({expr(['text', 'jsonb'])} ORDER BY {keys})",
            lambda: f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {expr(['int', 'date', 'text'])})"])()
        if self.chance(0.2) and "WITHIN" not in made:
            made += f" FILTER (WHERE {self.condition(sources, 1)})"
        return made

    def grouped(self):
        sql, sources = self.from_clause()
        keys = [c for c in (self.column(self.pick(SORTABLE), sources) for _ in range(3)) if c]
        keys = list(dict.fromkeys(keys)) or [self.column("text", sources) or sources[0].order()[0]]
        if self.chance(0.2):
            keys[0] = self.expression("text", [s for s in sources], 1)
            if "SELECT" in keys[0] or "$" in keys[0] or "." not in keys[0]:
                keys[0] = sources[0].order()[0]
        listed = ", ".join(keys)
        how = self.pick([listed, listed, f"ROLLUP ({listed})", f"CUBE ({listed})", f"GROUPING SETS (({listed}), ())"])
        outputs = keys + [self.aggregates(sources) for _ in range(self.rng.randint(1, 3))]
        text = f"SELECT {', '.join(outputs)} FROM {sql}{self.where(sources)} GROUP BY {how}"
        if self.chance(0.3):
            text += f" HAVING {self.aggregates(sources)} IS NOT NULL"
        return text, False

    def by_key(self):
        """Grouped by the primary key, other columns depending on it."""
        table = self.pick(["customers", "orders", "events"])
        source = self.source(table)
        inner = self.source("orders")
        key = ", ".join(source.order())
        columns = ", ".join(f"{source.alias}.{c}" for c in self.some(source.columns))
        return (f"SELECT {columns}, {self.aggregates([inner])} FROM {table} {source.alias} LEFT JOIN orders"
                f" {inner.alias} ON {inner.alias}.customer_id = {source.order()[0]}{self.where([source])} GROUP BY {key}",
                False)

    def windows(self):
        sql, sources = self.from_clause()
        keys = ", ".join(k for s in sources for k in s.order())

        def call():
            kind = self.pick(["text", "int", "date", "numeric"])
            part = self.leaf(self.pick(SORTABLE), sources)
            over = f"OVER (PARTITION BY {part} ORDER BY {keys})"
            return self.pick([
                f"row_number() {over}", f"lag({self.expression(kind, sources, 1)}) {over}",
                f"first_value({self.expression(kind, sources, 1)}) {over}",
                f"sum({self.expression('int', sources, 1)}) {over}",
                f"rank() OVER (ORDER BY {self.leaf(kind, sources)})", f"count(*) OVER (PARTITION BY {part})"])
        outputs = self.outputs(sources, SORTABLE) + [call() for _ in range(self.rng.randint(1, 2))]
        return self.ordered(f"SELECT {', '.join(outputs)} FROM {sql}{self.where(sources)}", len(outputs))

    def select_of(self, kinds):
        sql, sources = self.from_clause(depth=0)
        outputs = [self.expression(k, sources, 1) for k in kinds]
        return f"SELECT {', '.join(outputs)} FROM {sql}{self.where(sources)}"

    def set_operation(self):
        kinds = [self.pick(SORTABLE) for _ in range(self.rng.randint(1, 3))]
        text = self.select_of(kinds)
        for _ in range(self.rng.randint(1, 2)):
            word = self.pick(["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL"])
            text += f" {word} {self.select_of(kinds)}"
        return self.ordered(text, len(kinds))

    def with_query(self):
        sql, columns = self.derived([], 1)
        name = self.name("w")
        source = Source(name, columns, tuple(columns))
        table = self.table()
        other = self.source(table)
        outputs = self.outputs([source, other], SORTABLE)
        how = self.pick(["", "MATERIALIZED ", "NOT MATERIALIZED "])
        return self.ordered(
            f"WITH {name} AS {how}({sql}) SELECT {', '.join(outputs)} FROM {name} {self.pick(['', 'LEFT '])}JOIN {table}"
            f" {other.alias} ON {self.join_condition(other, [source], True)}{self.where([source, other])}", len(outputs))

    def searched(self):
        """A search from outside of what has the rows."""
        table = self.table(["customers", "events", "vault", "guarded"])
        inner, name = self.source(table), self.name("w")
        outer = Source(name, inner.columns, inner.key)
        outputs = self.outputs([outer], SORTABLE)
        rows = f"SELECT * FROM {table} {inner.alias}{self.where([inner])}"
        within = self.pick([
            f"WITH {name} AS ({rows})", f"WITH {name} AS MATERIALIZED ({rows})",
            f"WITH {name}_all AS ({rows}), {name} AS (SELECT * FROM {name}_all)",
            f"WITH {name} AS (SELECT DISTINCT {', '.join(f'{inner.alias}.{c}' for c, t in inner.columns.items() if t != 'json')}"
            f" FROM {table} {inner.alias})" if table != "customers" else f"WITH {name} AS ({rows})"])
        where = self.search([outer], 1)
        if self.chance(0.3):
            where = f"({where}) {self.pick(['OR', 'AND'])} {self.condition([outer], 1)}"
        if self.chance(0.2):
            where += f" AND EXISTS (SELECT 1 FROM {name} e WHERE e.id = {name}.id)"
        return self.ordered(f"{within} SELECT {', '.join(outputs)} FROM {name} WHERE {where}", len(outputs))

    def recursive(self):
        return ("WITH RECURSIVE walk (id, email, depth) AS ("
                f"SELECT c.id, c.email, 1 FROM customers c WHERE c.id <= {self.literal('int')}"
                " UNION ALL SELECT c.id, w.email || '/' || coalesce(c.email, '-'), depth + 1"
                " FROM walk w JOIN customers c ON c.id = w.id + 1 WHERE depth < 4) SELECT * FROM walk"), False

    def distinct(self):
        sql, sources = self.from_clause()
        outputs = self.outputs(sources, SORTABLE)
        return self.ordered(f"SELECT DISTINCT {', '.join(outputs)} FROM {sql}{self.where(sources)}", len(outputs))

    def distinct_on(self):
        sql, sources = self.from_clause(depth=0)
        first = self.column(self.pick(["text", "int", "bigint"]), sources) or sources[0].order()[0]
        outputs = [first] + self.outputs(sources, SORTABLE)
        keys = [k for s in sources for k in s.order()]
        return (f"SELECT DISTINCT ON ({first}) {', '.join(outputs)} FROM {sql}{self.where(sources)}"
                f" ORDER BY {first}, {', '.join(keys)}", False)

    def locking(self):
        table = self.table(["customers", "orders", "events", "vault"])
        source = self.source(table)
        outputs = self.outputs([source], SORTABLE)
        how = self.pick(["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])
        return (f"SELECT {', '.join(outputs)} FROM {table} {source.alias}{self.where([source])}"
                f" FOR {how}{self.pick(['', ' SKIP LOCKED', ' NOWAIT', f' OF {source.alias}'])}", False)

    def functions(self):
        t = self.tenant("text")
        return self.pick([
            f"SELECT * FROM emails_of({t})", f"SELECT f.email, c.age FROM emails_of({t}) f JOIN customers c USING (id)",
            "SELECT c.email, l FROM customers c, labels_of(c.id) l", f"SELECT oldest({t}), oldest(NULL)",
            "SELECT t.tenant_id, oldest(t.tenant_id) FROM tenants t",
            "SELECT t.plan, f.email FROM tenants t LEFT JOIN LATERAL emails_of(t.tenant_id) f ON true",
            f"SELECT emails_of({t})",
            f"SELECT rename_customer({self.rng.randint(1, 9)}, {self.literal('text')} || '{self.name('m')}')"]), False
