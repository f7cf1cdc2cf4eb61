"""Two sessions that are told the same: one with the plaintext tables in its
search path, one with the protected ones.  What a client can see of each answer
is compared: rows, column names, types and typmods, the columns they come from,
SQLSTATE, constraint, command tag, notices."""

from typing import NamedTuple

from psycopg import pq

BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
# What is printed of a line of a difference that is no statement
MESSAGE_WIDTH = 400
DIAG = pq.DiagnosticField
GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT)


class Outcome(NamedTuple):
    """What came of a statement."""
    sqlstate: str
    constraint: str
    tag: str
    columns: tuple
    rows: tuple
    notices: tuple
    message: str = ""
    detail: str = ""
    hint: str = ""

    def comparable(self, ordered, numbered=True):
        """What twins must have in common.  Rows without an order may come in
        any; an error may be worded in other words."""
        rows = self.rows if ordered else tuple(sorted(self.rows, key=repr))
        columns = self.columns if numbered else tuple(c[:3] for c in self.columns)
        return (self.sqlstate, self.constraint, self.tag, columns, rows, self.notices)


class Statement(NamedTuple):
    """SQL with, perhaps, parameters; rows to COPY; whether the order counts."""
    sql: str
    params: tuple = ()
    ordered: bool = False
    binary: bool = False
    data: bytes = b""


class Session:
    """A connection through libpq itself, so that nothing adapts what it says."""

    def __init__(self, conninfo, schema):
        self.conn = pq.PGconn.connect(conninfo.encode())
        if self.conn.status != pq.ConnStatus.OK:
            raise RuntimeError(self.conn.error_message.decode())
        self.notices = []
        self.conn.notice_handler = self.hear
        self.must(f"SET search_path = {schema}, public")

    def hear(self, result):
        self.notices.append((text(result.error_field(DIAG.SQLSTATE)),
                             text(result.error_field(DIAG.MESSAGE_PRIMARY))))

    def run(self, statement):
        """The outcome of a Statement."""
        self.notices.clear()
        if statement.params or statement.binary:
            result = self.conn.exec_params(
                statement.sql.encode(), [None if p is None else p.encode() for p in statement.params],
                result_format=int(statement.binary))
        else:
            result = self.conn.exec_(statement.sql.encode())
        return self.finish(result, statement.data)

    def start(self, statement):
        """Begin to execute without waiting; see wait()."""
        self.notices.clear()
        self.conn.send_query(statement.sql.encode())

    def wait(self):
        while self.conn.is_busy():
            self.conn.consume_input()
        return self.finish(self.last_result())

    def last_result(self):
        last = None
        while (result := self.conn.get_result()) is not None:
            last = result
        return last

    def finish(self, result, data=b""):
        rows = tuple(tuple(result.get_value(r, c) for c in range(result.nfields))
                     for r in range(result.ntuples))
        if result.status == pq.ExecStatus.COPY_OUT:
            rows = tuple(self.copied())
            result = self.last_result()
        elif result.status == pq.ExecStatus.COPY_IN:
            if data:
                self.conn.put_copy_data(data)
            self.conn.put_copy_end()
            result = self.last_result()
        if result.status not in GOOD:
            return Outcome(text(result.error_field(DIAG.SQLSTATE)) or "lost",
                           text(result.error_field(DIAG.CONSTRAINT_NAME)), "", (), (), (),
                           text(result.error_field(DIAG.MESSAGE_PRIMARY)) or self.conn.error_message.decode(),
                           text(result.error_field(DIAG.MESSAGE_DETAIL)), text(result.error_field(DIAG.MESSAGE_HINT)))
        columns = tuple((result.fname(c), result.ftype(c), result.fmod(c), result.ftablecol(c))
                        for c in range(result.nfields))
        return Outcome("00000", "", text(result.command_status), columns, rows, tuple(self.notices))

    def copied(self):
        while True:
            length, data = self.conn.get_copy_data(0)
            if length <= 0:
                return
            # The header would make one of the rows another, whichever comes first.
            yield (bytes(data).removeprefix(BINARY_HEADER),)

    def must(self, sql):
        """Execute what has to succeed; its rows."""
        outcome = self.run(Statement(sql))
        if outcome.sqlstate != "00000":
            raise RuntimeError(f"{outcome.sqlstate} {outcome.message}: {sql}")
        return outcome.rows


def text(value):
    return value.decode() if value else ""


class Difference(Exception):
    """The twins gave different answers."""

    def __init__(self, statement, plain, sealed):
        super().__init__(statement)
        self.statement, self.plain, self.sealed = statement, plain, sealed

    def explain(self):
        lines = [f"    parameters: {self.statement.params}"] if self.statement.params else []
        for name, one, other in (("plain ", self.plain, self.sealed), ("sealed", self.sealed, self.plain)):
            lines.append(f"  {name}: {one.sqlstate} {one.constraint} {one.message} {one.tag}, {len(one.rows)} rows")
            if odd := [c for c in one.columns if c not in other.columns]:
                lines.append(f"          columns {odd}")
            if one.notices != other.notices:
                lines.append(f"          notices {one.notices}")
        lines += [f"  {line}" for line in row_differences(self.plain.rows, self.sealed.rows)]
        return "\n".join([f"    {self.statement.sql}"] + [line[:MESSAGE_WIDTH] for line in lines])


def row_differences(plain, sealed, most=4):
    """What a reader wants to see of two sets of rows: those that only one has,
    and of two that are nearly alike what differs."""
    rest = list(sealed)
    missing = []
    for row in plain:
        if row in rest:
            rest.remove(row)
        else:
            missing.append(row)
    if len(missing) == len(rest) == 1 and len(missing[0]) == len(rest[0]):
        return [f"column {i + 1}: plain {one}, sealed {other}"
                for i, (one, other) in enumerate(zip(missing[0], rest[0])) if one != other]
    return ([f"only in plain: {row}" for row in missing[:most]] + [f"only in sealed: {row}" for row in rest[:most]]
            or ["the same rows in another order"])


class Pair:
    """A session of each twin."""

    def __init__(self, conninfo):
        self.plain = Session(conninfo, "plain")
        self.sealed = Session(conninfo, "sealed")
        self.numbered = True

    def run(self, statement):
        """Execute on both; raises Difference.  The outcome."""
        plain, sealed = self.plain.run(statement), self.sealed.run(statement)
        return self.compare(statement, plain, sealed)

    def start(self, statement):
        self.plain.start(statement)
        self.sealed.start(statement)

    def wait(self, statement):
        return self.compare(statement, self.plain.wait(), self.sealed.wait())

    def settled(self, watcher):
        """Of each session, whether it has answered what it was told to start
        (True), waits for a lock (False), or neither yet (None).  watcher is another
        Session."""
        sessions = (self.plain, self.sealed)
        blocked = {pid for (pid,) in watcher.must(
            "SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid IN"
            f" ({', '.join(str(s.conn.backend_pid) for s in sessions)})")}
        for session in sessions:
            session.conn.consume_input()
        return tuple(True if not s.conn.is_busy() else False if str(s.conn.backend_pid).encode() in blocked else None
                     for s in sessions)

    def compare(self, statement, plain, sealed):
        if plain.comparable(statement.ordered, self.numbered) != sealed.comparable(statement.ordered, self.numbered):
            raise Difference(statement, plain, sealed)
        return plain

    def try_both(self, statement):
        """The outcomes on both, in transactions that are rolled back."""
        outcomes = []
        for session in (self.plain, self.sealed):
            session.must("BEGIN")
            outcomes.append(session.run(statement))
            session.must("ROLLBACK")
        return outcomes
