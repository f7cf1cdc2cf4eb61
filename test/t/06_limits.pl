# What the machine does not give: files, locked memory, worker processes, slots.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

# start_under LIMITS SERVER: start a server under limits of the shell.
sub start_under
{
	my ($limits, $server) = @_;
	$server->stop;
	system_or_bail('sh', '-c', "$limits; exec pg_ctl -w -D '" . $server->data_dir . "' -l '" . $server->logfile . "' start");
	$server->_update_pid(1);
	return;
}

my $server = new_server('limits', 'envelope.kms_connections = 1', 'max_connections = 100', "max_files_per_process = 64");
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array(SELECT 't' || g FROM generate_series(1, 2000) g));
	CREATE TABLE sealed AS SELECT g, 't' || g AS tenant, envelope_encrypt('t' || g, 'x') AS v FROM generate_series(1, 2000) g;
});

start_under('ulimit -n 256; ulimit -l 64', $server);
like(slurp_file($server->logfile), qr/LOG:  could not lock \d+ bytes of data keys into memory/, 'the log says that keys could be swapped out');
is($server->safe_psql('postgres', q{SELECT severity, subject FROM envelope_doctor() WHERE subject = 'memory'}), 'warning|memory', 'and doctor repeats it');

# 2,000 cold tenants at once, one call at a time
my $folder = PostgreSQL::Test::Utils::tempdir;
append_to_file("$folder/cold.sql", "SELECT 1 / (count(envelope_decrypt(tenant, v)) = 25)::int FROM sealed WHERE g % 80 = :client_id;\n");
set_faults($server, 'platform:delay=1');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
my ($stdout, $stderr) = run_command([ 'pgbench', '-n', '-c', '80', '-j', '1', '-t', '1', '-f', "$folder/cold.sql", $server->connstr('postgres') ]);
like($stdout, qr{80/80}, 'eighty sessions open two thousand cold tenants, one KMS call at a time') or diag $stderr;
is(calls($server, 'unwrap'), 2000, 'by a call each');
set_faults($server, '');

# The worker cannot start: VE008 says so, and doctor.
$server->append_conf('postgresql.conf', "max_worker_processes = 0\nmax_logical_replication_workers = 0\n");
$server->restart;
is(sqlstate($server, q{SET envelope.kms_timeout = '300ms'; SELECT envelope_decrypt(tenant, v) FROM sealed LIMIT 1}), 'VE008', 'without a place for the worker no key is to be had');
is($server->safe_psql('postgres', q{SELECT severity FROM envelope_doctor() WHERE subject = 'worker'}), 'error', 'which doctor explains');
$server->append_conf('postgresql.conf', "max_worker_processes = 8\n");
$server->restart;
is(sqlstate($server, q{SELECT envelope_decrypt(tenant, v) FROM sealed LIMIT 1}), 'x', 'with one it is');

# PostgreSQL converts at most half a gigabyte from one encoding to another at a
# time; a value may have more.
$server->safe_psql('postgres', q{CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'});
$server->safe_psql('latin1', q{
	CREATE EXTENSION envelope;
	SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
	SELECT envelope_create_tenant('t1');
});
is($server->safe_psql('latin1', q{SELECT length(envelope_encrypt('t1', repeat('x', 540000000)))}), 540000045, 'large texts are converted');

# Settings that size memory are only for the start.
is(sqlstate($server, q{SET envelope.cache_size = 5}), '55P02', 'the cache does not change its size');

$server->stop;
done_testing();
