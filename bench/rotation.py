"""Measure what rotations cost, on the server of bench/run, and report.

A plain UPDATE of the same rows is measured beside each rotation, in the same
round, and medians of the rounds are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

from measure import psql, set_faults

# How many keys are re-wrapped, how many tenants are due at once
KEYS = 10000
DUE = 200


def timed(sql):
    """Seconds that SQL takes, in a session of its own."""
    start = time.time()
    psql("SET client_min_messages = warning;\n" + sql)
    return time.time() - start


def make_table(rows):
    psql(f"""
        SET client_min_messages = warning;
        DROP TABLE IF EXISTS rotated;
        CREATE TABLE rotated (id int PRIMARY KEY, tenant text, body bytea, counter int DEFAULT 0);
        INSERT INTO rotated SELECT g, 't1', envelope_encrypt('t1', 'value number ' || g, 'rotated') FROM generate_series(1, {rows}) g;
        SELECT envelope_register_column('rotated', 'body', 'tenant', 'rotated');
        VACUUM ANALYZE rotated""")


def measure_speed(rows, rounds):
    """Rows a second of a rotation and of a plain UPDATE that writes as much."""
    update, rotation = [], []
    for _ in range(rounds):
        make_table(rows)
        update.append(rows / timed("UPDATE rotated SET body = set_byte(body, 40, 1)"))
        make_table(rows)
        rotation.append(rows / timed("CALL envelope_rotate_tenant('t1', 5000)"))
    return statistics.median(update), statistics.median(rotation)


def foreground_p99(script, seconds, beside=None):
    """The p99 in ms of a client that looks a row up again and again."""
    log = script + ".log"
    run = subprocess.Popen(["pgbench", "-n", "-f", script, "-T", str(seconds), "-c", "1",
                            "--rate", "200", "-l", f"--log-prefix={log}", "postgres"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if beside:
        beside()
    run.wait()
    path = f"{log}.{run.pid}"
    # The fifth field is when it ended, the third how long it took, in µs.
    with open(path) as lines:
        latencies = sorted(int(line.split()[2]) for line in lines)
    os.remove(path)
    return latencies[int(len(latencies) * 0.99)] / 1000


def measure_foreground(rows, folder):
    """p99 of a lookup while nothing else runs, while a key rotates as fast as
    it can, and while it does with the pauses that the guide gives."""
    script = os.path.join(folder, "lookup.sql")
    with open(script, "w") as out:
        out.write(f"\\set id random(1, {rows})\n"
                  "SELECT envelope_decrypt(tenant, body, 'rotated') FROM rotated WHERE id = :id;\n")

    def rotate(arguments):
        """Rotate again and again, or as far as it gets, for as long as is measured."""
        until = time.time() + 14
        while (left := int((until - time.time()) * 1000)) > 0:
            subprocess.run(["psql", "-X", "-q", "-d", "postgres", "-c", f"SET statement_timeout = {left}",
                            "-c", f"CALL envelope_rotate_tenant('t1', {arguments})"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    make_table(rows)
    figures = [foreground_p99(script, 15),
               foreground_p99(script, 15, lambda: rotate("1000")),
               foreground_p99(script, 15, lambda: rotate("200, '50 ms'"))]
    psql("SET client_min_messages = warning; CALL envelope_rotate_tenant('t1')")
    return figures


def measure_kek():
    """Seconds to re-wrap KEYS keys of a KMS that answers in 10 ms, and rows of data written."""
    psql("SELECT envelope_create_kek('moving', 'local://platform')")
    psql(f"SELECT envelope_create_tenants(array(SELECT 'rewrapped ' || g FROM generate_series(1, {KEYS} / 2) g), 'moving')")
    before = psql("SELECT md5(string_agg(ctid::text || xmin::text, ' ' ORDER BY id)) FROM rotated")
    set_faults("platform:delay=10;moving:delay=10")
    seconds = timed("CALL envelope_rotate_kek('moving')")
    set_faults("")
    moved = int(psql("SELECT rows_reencrypted FROM envelope.rotations WHERE kind = 'kek' ORDER BY rotation_id DESC LIMIT 1")[0])
    after = psql("SELECT md5(string_agg(ctid::text || xmin::text, ' ' ORDER BY id)) FROM rotated")
    assert moved == KEYS and before == after, (moved, before, after)
    return seconds


def measure_due(rows):
    """Seconds of one tenant's rotation, and of DUE tenants' in one pass, of as many rows."""
    psql(f"""
        SET client_min_messages = warning;
        SELECT envelope_unregister_column('rotated', 'body');
        DROP TABLE rotated;
        SELECT envelope_create_tenants(array(SELECT 'due ' || g FROM generate_series(1, {DUE}) g));
        CREATE TABLE many (id int, tenant text, body bytea);
        INSERT INTO many SELECT g, 'due ' || 1 + g % {DUE}, envelope_encrypt('due ' || 1 + g % {DUE}, 'value ' || g, 'many') FROM generate_series(1, {rows}) g;
        CREATE TABLE single (id int, tenant text, body bytea);
        INSERT INTO single SELECT g, 'due 1', envelope_encrypt('due 1', 'value ' || g, 'many') FROM generate_series(1, {rows}) g;
        SELECT envelope_register_column('single', 'body', 'tenant', 'many');
        VACUUM ANALYZE many, single""")
    one = timed("CALL envelope_rotate_tenant('due 1', 5000)")
    psql(f"""
        SELECT envelope_unregister_column('single', 'body');
        SELECT envelope_register_column('many', 'body', 'tenant', 'many');
        SELECT envelope_set_rotation_interval('due ' || g, '1 millisecond') FROM generate_series(1, {DUE}) g""")
    many = timed("CALL envelope_run_maintenance(5000)")
    proven = int(psql(f"SELECT count(*) FROM envelope.rotations WHERE tenant_id LIKE 'due %' AND phase = 'proven'")[0])
    assert proven == DUE + 1, proven
    return one, many


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--output")
    args = parser.parse_args()

    update, rotation = measure_speed(args.rows, args.rounds)
    alone, fast, gentle = measure_foreground(args.rows, args.folder)
    kek = measure_kek()
    one, many = measure_due(args.rows)
    rows = [
        ("rotation, rows a second as part of a plain UPDATE", rotation / update, 0.5, ">="),
        ("p99 of a lookup during a rotation, over without", fast / alone, 1.5, "<="),
        ("the same, in batches of 200 with pauses of 50 ms", gentle / alone, 1.5, "<="),
        (f"KEK rotation of {KEYS:,} keys, KMS of 10 ms, seconds", kek, 10, "<="),
        (f"{DUE} tenants due in one table, over one tenant", many / one, 3, "<="),
    ]
    print(f"{'':56}{'figure':>8}  {'bound':>8}")
    for what, figure, bound, sense in rows:
        held = figure >= bound if sense == ">=" else figure <= bound
        print(f"{what:56}{figure:8.2f}  {sense} {bound:<5} {'held' if held else 'MISSED'}")
    print(f"\nplain UPDATE {update:,.0f} rows/s, rotation {rotation:,.0f} rows/s; "
          f"p99 {alone:.2f} ms alone, {fast:.2f} and {gentle:.2f} ms beside a rotation; "
          f"one tenant {one:.2f} s, {DUE} tenants {many:.2f} s")
    if args.output:
        with open(os.path.join(args.output, "rotation.json"), "w") as out:
            json.dump({"server": psql("SHOW server_version")[0], "rows": args.rows, "rounds": args.rounds,
                       "ratios": [dict(zip(("what", "figure", "bound", "sense"), row)) for row in rows]},
                      out, indent=1)


if __name__ == "__main__":
    main()
