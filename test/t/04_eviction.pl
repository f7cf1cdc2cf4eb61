# The smallest cache serves the largest scan; and what is evicted or suspended
# reaches statements that are under way.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('eviction', 'envelope.cache_size = 2', "envelope.cache_ttl = '1s'");
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array(SELECT 't' || g FROM generate_series(1, 50) g));
	CREATE TABLE sealed AS SELECT g, 't' || (1 + g % 50) AS tenant, envelope_encrypt('t' || (1 + g % 50), 'value ' || g, 'c') AS v
		FROM generate_series(1, 50000) g;
});

# Fifty tenants, row by row another, two places in the cache, eight sessions
my $folder = PostgreSQL::Test::Utils::tempdir;
append_to_file("$folder/scan.sql",
	"SELECT 1 / (count(*) = 50000 AND sum(length(p)) = sum(length('value ' || g)) AND bool_and(p = 'value ' || g))::int FROM (SELECT g, envelope_decrypt(tenant, v, 'c') AS p FROM sealed) s;\n");
my ($stdout, $stderr) = run_command([ 'pgbench', '-n', '-c', '8', '-j', '1', '-t', '3', '-f', "$folder/scan.sql", $server->connstr('postgres') ]);
like($stdout, qr{24/24}, 'every scan has every row right') or diag $stderr;
is($server->safe_psql('postgres', 'SELECT size, used <= size FROM envelope.cache_stats'), '2|t', 'the cache never exceeds its size');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope_doctor() WHERE subject = 'cache'}), 1, 'doctor recommends a larger one');
like($server->safe_psql('postgres', q{SET client_min_messages = error; SELECT envelope_warm()}), qr/^[012]$/, 'warming stops at its size');

# A single place, and keys of both purposes in turn
$server->append_conf('postgresql.conf', "envelope.cache_size = 1\n");
$server->restart;
append_to_file("$folder/one.sql",
	"SELECT 1 / (count(*) = 5000 AND bool_and(p = 'value ' || g AND t IS NOT NULL))::int FROM (SELECT g, envelope_decrypt(tenant, v, 'c') AS p, envelope_blind_index(tenant, 'x') AS t FROM sealed WHERE g <= 5000) s;\n");
($stdout, $stderr) = run_command([ 'pgbench', '-n', '-c', '8', '-j', '1', '-t', '2', '-f', "$folder/one.sql", $server->connstr('postgres') ]);
like($stdout, qr{16/16}, 'a cache of one key serves eight sessions with a hundred') or diag $stderr;
is($server->safe_psql('postgres', 'SELECT size, used <= size FROM envelope.cache_stats'), '1|t', 'and holds one');
$server->append_conf('postgresql.conf', "envelope.cache_size = 2\n");
$server->restart;

# A suspension reaches a statement in its midst, whatever its snapshot.
for my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	my $session = Envelope::Session->new($server);
	$session->query("BEGIN ISOLATION LEVEL $level");
	$session->query('SELECT count(*) FROM sealed');
	$session->send(q{SELECT count(envelope_decrypt(tenant, v, 'c') || pg_sleep(0.01)) FROM sealed WHERE tenant = 't7'});
	ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND wait_event = 'PgSleep'") }),
		"$level: a statement is under way");
	my $start = now();
	$server->safe_psql('postgres', q{SELECT envelope_suspend_tenant('t7')});
	is($session->wait, 'VE006', "$level: suspended in its midst");
	cmp_ok(now() - $start, '<', 4, "$level: within a second or so");
	$server->safe_psql('postgres', q{SELECT envelope_resume_tenant('t7')});
	$session->quit;
}

# An eviction makes a statement ask again, and go on.
my $session = Envelope::Session->new($server);
my $before = calls($server, 'unwrap');
$session->send(q{SELECT count(envelope_decrypt(tenant, v, 'c') || pg_sleep(0.002)) FROM sealed WHERE tenant = 't8'});
eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND wait_event = 'PgSleep'") });
for (1 .. 5) { $server->safe_psql('postgres', 'SELECT envelope_evict_all()') }
is($session->wait, '1000', 'an eviction loses no row');
cmp_ok(calls($server, 'unwrap'), '>', $before + 1, 'but costs a call');
$session->quit;

$server->stop;
done_testing();
