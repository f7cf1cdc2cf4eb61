"""Compare a protected table with its plaintext twin, and with a view over
pgcrypto, on the server of bench/run.

What is compared runs in turns, round after round, so that a machine that slows
down slows all of it down; the median of each round's ratio counts.
"""

import argparse
import json
import os
import statistics
import subprocess

from measure import psql

KINDS = ("plain", "sealed", "crypto")

# name -> (script of pgbench, bound: at least so much of the twin's rate)
WORK = {
    "read by key": ("\\set id random(1, :rows)\n"
                    "SELECT email, ssn, note FROM customers WHERE id = :id;", 0.90),
    "insert": ("\\set n random(1, 1000000000)\n"
               "INSERT INTO customers (tenant_id, email, ssn, note, amount)"
               " VALUES ('t' || (1 + :n % 10), 'new' || :n || random(), :n % 1000, 'a note of some length', 1);", 0.70),
    "update of a protected column": (
        "\\set id random(1, :rows)\n"
        "UPDATE customers SET note = 'another note ' || :id WHERE id = :id;", 0.70),
    "update of another column": (
        "\\set id random(1, :rows)\n"
        "UPDATE customers SET amount = amount + 1 WHERE id = :id;", None),
    "upsert": ("\\set id random(1, :rows)\n"
               "INSERT INTO customers (tenant_id, email, ssn, note) VALUES ('t' || (1 + :id % 10),"
               " 'user' || :id || '@mail.example', '1', 'x') ON CONFLICT (tenant_id, email)"
               " DO UPDATE SET note = EXCLUDED.note, amount = customers.amount + 1;", 0.70),
    "equality on a searchable column": (
        "\\set id random(1, :rows)\n"
        "SELECT id, ssn FROM customers WHERE tenant_id = 't' || (1 + :id % 10)"
        " AND email = 'user' || :id || '@mail.example';", 0.85),
}
# A view takes no ON CONFLICT, and cannot use an index for what it decrypts.
NOT_FOR_VIEWS = ("upsert", "equality on a searchable column")
COLUMNS = "id, tenant_id, email, ssn, note, amount"
BULK = {
    "COPY FROM": "COPY customers ({columns}) FROM '{file}'",
    "INSERT ... SELECT": "INSERT INTO customers ({columns}) SELECT {columns} FROM public.source",
    "UPDATE of all rows, a protected column": "UPDATE customers SET note = note || '!'",
    "SELECT of all rows": "SELECT count(email), count(ssn), count(note) FROM customers",
}
BULK_BOUNDS = {"COPY FROM": 2.5, "INSERT ... SELECT": 2.5}


def tps(kind, script, rows, seconds, socket=None):
    """Transactions a second of two clients."""
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "work.sql")
    with open(path, "w") as out:
        out.write(script)
    done = subprocess.run(
        ["pgbench", "-n", "-M", "prepared", "-f", path, "-D", f"rows={rows}", "-c", "2", "-j", "2", "-T", str(round(seconds)), "postgres"],
        capture_output=True, text=True,
        env={**os.environ, "PGOPTIONS": f"-c search_path={kind},public", **({"PGHOST": socket} if socket else {})})
    line = [line for line in done.stdout.splitlines() if line.startswith("tps")]
    if done.returncode != 0 or not line:
        raise SystemExit(f"pgbench: {done.stdout}{done.stderr}")
    return float(line[0].split()[2])


def measure_work(rows, rounds, seconds):
    """name -> kind -> medians of tps, and of the ratio to the twin's."""
    rates = {name: {kind: [] for kind in KINDS} for name in WORK}
    for _ in range(rounds):
        for name, (script, _) in WORK.items():
            for kind in KINDS:
                if kind != "crypto" or name not in NOT_FOR_VIEWS:
                    rates[name][kind].append(tps(kind, script, rows, seconds))
    return {name: {kind: (statistics.median(values), statistics.median(v / p for v, p in zip(values, of["plain"])))
                   for kind, values in of.items() if values} for name, of in rates.items()}


def timed(kind, statement):
    return float(psql(f"SET search_path = {kind}, public; SELECT public.time_of($${statement}$$)")[0])


def measure_bulk(rounds, file):
    """The same, of milliseconds."""
    times = {name: {kind: [] for kind in KINDS} for name in BULK}
    for _ in range(rounds):
        for name, statement in BULK.items():
            for kind in KINDS:
                if name in BULK_BOUNDS:
                    psql(f"TRUNCATE {'crypto.stored' if kind == 'crypto' else kind + '.customers'}; CHECKPOINT")
                times[name][kind].append(timed(kind, statement.format(columns=COLUMNS, file=file)))
        for kind in ("plain.customers", "sealed.customers", "crypto.stored"):
            psql(f"VACUUM ANALYZE {kind}")
    return {name: {kind: (statistics.median(values), statistics.median(v / p for v, p in zip(values, of["plain"])))
                   for kind, values in of.items()} for name, of in times.items()}


def measure_unloaded(rows, rounds, seconds, socket):
    """The rate of statements on a plaintext table as a part of what a server
    that does not load the library gives."""
    ratios = {}
    for name in ("read by key", "update of another column"):
        script = WORK[name][0].replace("customers", "public.source_by_key")
        pairs = []
        # A percent is less than what one pair differs by: many short ones.
        for turn in range(6 * rounds):
            order = ((None, socket), (socket, None))[turn % 2]
            rates = {where: tps("public", script, rows, seconds / 3, where) for where in order}
            pairs.append(rates[None] / rates[socket])
        ratios[name] = statistics.median(pairs)
    return ratios


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--file", required=True, help="where the rows to copy are")
    parser.add_argument("--unloaded", required=True, help="the socket of a server that does not load the library")
    parser.add_argument("--output")
    args = parser.parse_args()

    bulk = measure_bulk(args.rounds, args.file)
    work = measure_work(args.rows, args.rounds, args.seconds)
    unloaded = measure_unloaded(args.rows, args.rounds, args.seconds, args.unloaded)

    print(f"\n{'protected tables':44}{'plain':>10}{'protected':>11}{'ratio':>8}{'bound':>8}  {'':8}{'view':>10}{'ratio':>8}")
    for name, of in work.items():
        report(name, of, "tps", WORK[name][1], True)
    for name, of in bulk.items():
        report(name, of, "ms", BULK_BOUNDS.get(name), False)
    for name, ratio in unloaded.items():
        print(f"{name + ', unprotected, library loaded':54}{'':11}{ratio:8.3f}{'>= 0.99':>8}  {'held' if ratio >= 0.99 else 'MISSED'}")
    if args.output:
        with open(os.path.join(args.output, "tables.json"), "w") as out:
            json.dump({"server": psql("SHOW server_version")[0], "rows": args.rows, "rounds": args.rounds,
                       "tps": work, "ms": bulk, "unprotected_ratio": unloaded}, out, indent=1)


def report(name, of, unit, bound, more_is_better):
    ratio = of["sealed"][1]
    shown = "" if bound is None else f"{'>=' if more_is_better else '<='} {bound:.2g}"
    held = "" if bound is None else "held" if (ratio >= bound if more_is_better else ratio <= bound) else "MISSED"
    view = f"{of['crypto'][0]:10.0f}{of['crypto'][1]:8.2f}" if "crypto" in of else f"{'no':>10}"
    print(f"{name + ', ' + unit:44}{of['plain'][0]:10.0f}{of['sealed'][0]:11.0f}{ratio:8.2f}{shown:>8}  {held:8}{view}")


if __name__ == "__main__":
    main()
