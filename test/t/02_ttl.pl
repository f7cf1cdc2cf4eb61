# A key lives for its TTL, is refreshed ahead while it is used, and is gone when
# it is not.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use POSIX qw(ceil);
use Test::More;

my $server = new_server('ttl', "envelope.cache_ttl = '5s'", "envelope.outage_grace = '4s'", 'max_connections = 250');
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array['t1', 't2']);
	CREATE TABLE sealed AS SELECT envelope_encrypt('t1', 'x') AS v, envelope_encrypt('t2', 'y') AS w;
});

# Under load, a KMS that takes 200 ms: no statement waits for it but the first.
my $folder = PostgreSQL::Test::Utils::tempdir;
append_to_file("$folder/open.sql", "SELECT envelope_decrypt('t1', v) FROM sealed;\n");
append_to_file("$folder/seal.sql", "SELECT envelope_encrypt('t1', 'x');\n");
set_faults($server, 'platform:delay=200');
$server->safe_psql('postgres', q{SELECT envelope_warm(array['t1'])});
# In use while two hundred sessions connect, which may take longer than its TTL
my $keeper = Envelope::Session->new($server)->send(q{DO $$
	BEGIN
		LOOP
			PERFORM envelope_decrypt('t1', v), envelope_encrypt('t1', 'y') FROM sealed;
			COMMIT;
			PERFORM pg_sleep(0.1);
		END LOOP;
	END $$});
my $waits = q{SELECT waits FROM envelope.kms_stats WHERE kek = 'platform' AND operation = 'unwrap'};
my $waits_before = $server->safe_psql('postgres', $waits);
my $calls_before = calls($server, 'unwrap');
my $seconds = 20;
my $start = now();
command_ok([ 'pgbench', '-n', '-c', '200', '-j', '1', '-T', $seconds, '-f', "$folder/open.sql", '-f', "$folder/seal.sql", $server->connstr('postgres') ],
	'two hundred sessions seal and open for four lives of a key');
$server->safe_psql('postgres', "SELECT pg_terminate_backend($keeper->{pid})");
$keeper->quit;
my $calls = calls($server, 'unwrap') - $calls_before;
is($server->safe_psql('postgres', $waits) - $waits_before, 0, 'nobody waited for the KMS');
cmp_ok($calls, '>=', 2, 'the key was refreshed');
cmp_ok($calls, '<=', ceil((now() - $start) / (0.7 * 5)) + 1, 'once in 0.7 of its TTL at most');

# Unused, it is wiped although nobody looks, two seconds after its end at the
# latest.
my $used = q{SELECT used FROM envelope.cache_stats};
set_faults($server, '');
$server->safe_psql('postgres', q{SELECT envelope_evict_all(); SELECT envelope_warm()});
my $left = $server->safe_psql('postgres', q{SELECT extract(epoch FROM max(expires_in)) FROM envelope.cache});
my $warmed = now();
is($server->safe_psql('postgres', $used), 4, 'four keys are in memory');
ok(eventually(sub { $server->safe_psql('postgres', $used) == 0 }), 'an idle server wipes what has expired');
cmp_ok(now() - $warmed, '<', $left + 2 + 1, 'in time');

# However late its worker comes to look: the machine may have been suspended.
my $worker = worker_pid($server);
$server->safe_psql('postgres', q{SELECT envelope_warm()});
kill 'STOP', $worker;
eventually(sub { $server->safe_psql('postgres', q{SELECT count(*) FROM envelope.cache}) == 0 });
my $stopped_until = now() + 2;
eventually(sub { now() > $stopped_until });
is($server->safe_psql('postgres', $used), 4, 'a worker that does not run wipes nothing');
kill 'CONT', $worker;
ok(eventually(sub { $server->safe_psql('postgres', $used) == 0 }), 'one that runs again wipes what has expired meanwhile');

# Use never makes a key live longer: the KMS away, it ends with TTL and grace.
# The TTL is one that leaves the refresh time for all its attempts.
my ($ttl, $grace) = (8, 4);
$server->append_conf('postgresql.conf', "envelope.cache_ttl = '${ttl}s'\n");
set_faults($server, '');
$server->safe_psql('postgres', q{SELECT envelope_evict_all(); SELECT envelope_warm(array['t1', 't2'])});
set_faults($server, 'platform:unreachable');
$start = now();
my $session = Envelope::Session->new($server);
$session->query(q{SET envelope.kms_timeout = '300ms'});
my ($last_good, $seen_grace, $end, $unused) = ($start, 0, '', '');
eventually(sub {
		my $asked = now();
		$end = $session->query(q{SELECT envelope_decrypt('t1', v), envelope_encrypt('t1', 'y') IS NOT NULL FROM sealed});
		$last_good = $asked if $end eq 'x|t';
		my $states = $session->query(q{SELECT string_agg(tenant_id || ':' || state, ' ' ORDER BY 1) FROM envelope.cache WHERE purpose = 'data'});
		$seen_grace ||= $states =~ /t1:grace/;
		# the other tenant is not used, and expires with its TTL
		$unused = $session->query(q{SELECT envelope_decrypt('t2', w) FROM sealed}) if $unused eq '' && now() - $start > $ttl + 1;
		$end ne 'x|t';
	});
is($end, 'VE003', 'a key in use ends as unreachable');
ok($seen_grace, 'after a grace, in which it opens and seals');
is($unused, 'VE003', 'one that was not used had none');
cmp_ok($last_good - $start, '>', $ttl, 'it lived beyond its TTL');
cmp_ok($last_good - $start, '<', $ttl + $grace + 2, 'but not beyond TTL and grace');
$session->quit;
$server->append_conf('postgresql.conf', "envelope.cache_ttl = '3s'\n");

# Well again without help
set_faults($server, '');
ok(eventually(sub { sqlstate($server, q{SELECT envelope_decrypt('t1', v) FROM sealed}) eq 'x' }), 'the KMS back, all opens again');

# A long statement keeps no key longer than anybody else.
set_faults($server, '');
$server->safe_psql('postgres', q{SELECT envelope_evict_all(); SELECT envelope_warm(array['t1'])});
my $long = Envelope::Session->new($server);
set_faults($server, 'platform:unreachable');
$start = now();
$long->send(q{SET envelope.kms_timeout = '300ms'; SELECT count(envelope_decrypt('t1', v) || pg_sleep(0.02)) FROM sealed, generate_series(1, 3000)});
is($long->wait, 'VE003', 'in a long statement too, a key comes to its end');
cmp_ok(now() - $start, '<', 3 + 4 + 4, 'in time');
$long->quit;

$server->stop;
done_testing();
