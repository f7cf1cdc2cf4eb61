"""What the client tests share: TAP, and what a superuser does beside them.

Each test makes its tables as its users would, has them protected by a call that
the application knows nothing of, and then works on them.  With
ENVELOPE_PROTECT=no nothing is protected, and the tests must pass as well."""

import os
import subprocess
import sys
import traceback

count = failed = 0


def ok(passed, what, *details):
    global count, failed
    count += 1
    print(f"{'ok' if passed else 'not ok'} {count} - {what}", flush=True)
    if not passed:
        failed += 1
        for detail in details:
            print(f"#   {detail!r}", flush=True)


def equal(got, expected, what):
    ok(got == expected, what, f"got {got!r}", f"expected {expected!r}")


def raises(kind, what, function, *args, **kwargs):
    """The exception, for a look at it."""
    try:
        function(*args, **kwargs)
    except kind as error:
        ok(True, what)
        return error
    except Exception as error:
        ok(False, what, f"raised {error!r}")
        return error
    ok(False, what, "raised nothing")
    return None


def sql(text, database=None):
    """By the superuser, in psql, straight to the server."""
    done = subprocess.run(
        ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database or os.environ["PGDATABASE"]],
        input=text, capture_output=True, text=True, env={**os.environ, "PGHOST": os.environ.get("SERVER_HOST", os.environ["PGHOST"])})
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


def protecting():
    return os.environ.get("ENVELOPE_PROTECT") != "no"


def protect(table, tenant, columns, searchable=()):
    if protecting():
        sql(f"SELECT envelope_protect('{table}', '{tenant}', '{{{','.join(columns)}}}', '{{{','.join(searchable)}}}')")


def provision(table, column):
    """Sign-ups make their own keys."""
    if protecting():
        sql(f"CREATE TRIGGER provision AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION envelope_provision('{column}')")


def nothing_stored(table, columns, what):
    """No carrier of the table holds anything on disk, and something is sealed."""
    if protecting():
        stored = sql(f"SET envelope.stored_form = on; SELECT count(*) FILTER (WHERE num_nonnulls({','.join(columns)}) > 0),"
                     f" count({columns[0]}__sealed) > 0 FROM {table}")
        equal(stored, "0|t", what)


def finish(main):
    """Run it; an exception is one more failure."""
    try:
        main()
    except Exception:
        ok(False, "it ran to its end")
        print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()[-25:]), flush=True)
    print(f"1..{count}")
    sys.exit(1 if failed else 0)
