"""Measure what a KMS over the network costs, against one that answers in 10 ms
(kms_stub.c), on a server of bench/run of its own.
"""

import argparse
import glob
import json
import os
import subprocess
import tempfile
import time

from measure import psql

TENANTS = 10000
DELAY_MS = 10
TTL_S = 5


def start_stub(program):
    stub = subprocess.Popen([program, str(DELAY_MS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return stub, int(stub.stdout.readline())


def configure(port, path):
    """A KEK at the stub, for 10,000 tenants."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"profiles": {"stub": {"endpoint": f"http://127.0.0.1:{port}", "aws_access_key_id": "AKIABENCH",
                                         "aws_secret_access_key": "secret"}}}, file)
    if os.geteuid() == 0:
        os.chown(path, os.stat(os.path.dirname(path)).st_uid, -1)
    psql(f"ALTER SYSTEM SET envelope.credentials_file = '{path}'; SELECT pg_reload_conf();"
         "CREATE EXTENSION IF NOT EXISTS envelope")
    psql("""SELECT envelope_create_kek('stub', 'aws-kms://arn:aws:kms:eu-central-1:111122223333:key/bench',
        '{"profile": "stub"}', is_default => true)""")
    deadline = time.time() + 30
    while psql("SELECT ok FROM envelope_check_kek('stub')") != ["t"]:
        assert time.time() < deadline, psql("SELECT * FROM envelope_check_kek('stub')")
    psql(f"SELECT envelope_create_tenants(array(SELECT 't' || g FROM generate_series(1, {TENANTS}) g))")


def calls():
    return int(psql("SELECT coalesce(sum(calls), 0) FROM envelope.kms_stats WHERE operation = 'unwrap'")[0])


def worker_cpu_ms():
    """What the worker has used, from /proc."""
    pid = psql("SELECT worker_pid FROM envelope.get_server()")[0]
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def measure_warm():
    psql("SELECT envelope_evict_all()")
    before, cpu, start = calls(), worker_cpu_ms(), time.monotonic()
    psql("SELECT envelope_warm()")
    seconds = time.monotonic() - start
    made = calls() - before
    assert made == 2 * TENANTS, made
    return seconds, (worker_cpu_ms() - cpu) / made * 1000


def pgbench(script, *arguments):
    """Run a script; the folder of its log of latencies."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "script.sql")
    with open(path, "w") as file:
        file.write(script)
    done = subprocess.run(["pgbench", "-n", "-f", path, "--log", f"--log-prefix={folder}/log", *arguments, "postgres"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    latencies = []
    for log in glob.glob(f"{folder}/log*"):
        with open(log) as file:
            latencies += [int(line.split()[2]) for line in file]
    return sorted(latencies)


def measure_herd(sessions):
    """Calls that so many sessions cause who want the same cold key at once."""
    psql("CREATE TABLE IF NOT EXISTS herd AS SELECT envelope_encrypt('t1', 'x') AS value; SELECT envelope_evict_all()")
    before = calls()
    done = pgbench("SELECT envelope_decrypt('t1', value) FROM herd;", "-c", str(sessions), "-j", "2", "-t", "1")
    assert len(done) == sessions
    return calls() - before


def set_ttl(seconds):
    psql(f"ALTER SYSTEM SET envelope.cache_ttl = {seconds}; SELECT pg_reload_conf()")
    time.sleep(1)
    psql("SELECT envelope_evict_all(); SELECT envelope_warm(array['t1', 't2', 't3', 't4'])")


def measure_steady(seconds):
    """Calls a key and 0.7 TTL, and p99 beside that of a run without expiry."""
    psql("DROP TABLE IF EXISTS steady; CREATE TABLE steady AS"
         " SELECT g AS id, 't' || g AS tenant, envelope_encrypt('t' || g, 'x') AS value FROM generate_series(1, 4) g")
    script = "\\set id random(1, 4)\nSELECT envelope_decrypt(tenant, value) FROM steady WHERE id = :id;"
    set_ttl(86400)
    endless = pgbench(script, "-c", "2", "-j", "1", "-T", str(seconds), "-R", "1000")
    set_ttl(TTL_S)
    before = calls()
    expiring = pgbench(script, "-c", "2", "-j", "1", "-T", str(seconds), "-R", "1000")
    made = calls() - before
    psql("ALTER SYSTEM RESET envelope.cache_ttl; SELECT pg_reload_conf()")

    def p99(latencies):
        return latencies[int(len(latencies) * 0.99)]
    return made / 4 / (seconds / (0.7 * TTL_S)), p99(expiring) / p99(endless), expiring[-1] / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stub", required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--output")
    args = parser.parse_args()

    stub, port = start_stub(args.stub)
    configure(port, os.path.join(os.environ["PGHOST"], "credentials.json"))
    rounds = sorted(measure_warm() for _ in range(args.rounds))
    seconds, cpu = rounds[len(rounds) // 2]
    herd = measure_herd(args.sessions)
    steady, ratio, slowest = measure_steady(10 * TTL_S)
    stub.stdin.close()
    most = int(stub.stdout.read().split()[1])

    print(f"\nKMS over HTTP that answers in {DELAY_MS} ms, at most {most} calls at once\n")
    print("| | figure | bound we set | |\n|---|---|---|---|")
    rows = [
        (f"warming {TENANTS:,} tenants (two keys each)", f"{seconds:.2f} s", "≤ 4 s", seconds <= 4),
        ("worker CPU for 1,000 calls", f"{cpu:.0f} ms", "", None),
        (f"calls for one cold key that {args.sessions:,} sessions want", f"{herd}", "1", herd == 1),
        ("calls a key in use and 0.7 TTL", f"{steady:.2f}", "≤ 1", steady <= 1),
        ("p99 of queries, keys expiring / never", f"{ratio:.2f} x", "≤ 1.2 x", ratio <= 1.2),
        ("slowest query while keys expire", f"{slowest:.1f} ms", "", None),
    ]
    for name, figure, bound, held in rows:
        print(f"| {name} | {figure} | {bound} | {'' if held is None else 'held' if held else 'missed'} |")
    if args.output:
        with open(os.path.join(args.output, "kms.json"), "w") as file:
            json.dump({name: figure for name, figure, _, _ in rows}, file, indent=1)


if __name__ == "__main__":
    main()
