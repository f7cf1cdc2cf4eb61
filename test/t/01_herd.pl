# A cold key that many sessions want at once costs one KMS call, whatever happens
# to the first who asked.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('herd', 'max_connections = 250', 'restart_after_crash = on');
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array['t1', 't2']);
	CREATE TABLE sealed AS SELECT envelope_encrypt('t1', 'x') AS v, envelope_encrypt('t2', 'y') AS w;
});
my $script = PostgreSQL::Test::Utils::tempdir . '/open.sql';
append_to_file($script, "SELECT 1 / (envelope_decrypt('t1', v) = 'x')::int FROM sealed;\n");

# Long enough for all to come while the call is under way, on a busy machine too
set_faults($server, 'platform:delay=1000');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
my $before = calls($server, 'unwrap');
command_ok([ 'pgbench', '-n', '-c', '200', '-j', '1', '-t', '3', '-f', $script, $server->connstr('postgres') ],
	'200 sessions open values under one cold key');
is(calls($server, 'unwrap') - $before, 1, 'by one call of the KMS');
cmp_ok($server->safe_psql('postgres', q{SELECT waits FROM envelope.kms_stats WHERE kek = 'platform' AND operation = 'unwrap'}),
	'>=', 150, 'that they waited for together');

# So it does a session that finds no key in memory, and comes to ask only when
# another has asked and been answered.
set_faults($server, '');
my $late = Envelope::Session->new($server);
my $locker = Envelope::Session->new($server);
$late->query(q{SELECT envelope_decrypt('t1', v) FROM sealed});
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
$locker->query('BEGIN; LOCK TABLE envelope.tenants IN ACCESS EXCLUSIVE MODE');
$late->send(q{SELECT envelope_decrypt('t1', v) FROM sealed});
ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $late->{pid} AND wait_event_type = 'Lock'") }),
	'a session has missed the key, and reads the tables to ask for it');
kill 'STOP', $late->{pid};
$locker->query('ROLLBACK');
$before = calls($server, 'unwrap');
is($server->safe_psql('postgres', q{SELECT envelope_decrypt('t1', v) FROM sealed}), 'x', 'another asks, and is answered');
kill 'CONT', $late->{pid};
is($late->wait, 'x', 'the first has the key too');
is(calls($server, 'unwrap') - $before, 1, 'by the same call');
$_->quit for $late, $locker;

# The first who asked goes away; the others get the key by the same call.
for my $how ('pg_cancel_backend', 'pg_terminate_backend')
{
	set_faults($server, 'platform:delay=1500');
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	$before = calls($server, 'unwrap');
	my $first = Envelope::Session->new($server);
	$first->send(q{SELECT envelope_decrypt('t1', v) FROM sealed});
	ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $first->{pid} AND wait_event_type = 'Extension'") }),
		'somebody waits for the KMS');
	my @others = map { Envelope::Session->new($server)->send(q{SELECT envelope_decrypt('t1', v) FROM sealed}) } 1 .. 5;
	$server->safe_psql('postgres', "SELECT $how($first->{pid})");
	is($first->wait, $how eq 'pg_cancel_backend' ? '57014' : '57P01', "and is ended at once by $how");
	is(join(' ', map { $_->wait } @others), 'x x x x x', 'the others get the key');
	is(calls($server, 'unwrap') - $before, 1, 'by the same call');
	$_->quit for $first, @others;
}

# Killed, it takes all sessions with it; those who come back get the key by one
# call.
set_faults($server, 'platform:delay=1500');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
my @killed = map { Envelope::Session->new($server)->send(q{SELECT envelope_decrypt('t1', v) FROM sealed}) } 1 .. 3;
ok(eventually(sub { $server->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND state = 'active'}) == 3 }),
	'three wait for the KMS');
kill 'KILL', $killed[0]{pid};
ok(eventually(sub { my ($rc) = $server->psql('postgres', q{SELECT envelope_decrypt('t1', v) FROM sealed}, on_error_stop => 0); defined $rc && $rc == 0 }),
	'the first is killed, and after a new start');
my @back = map { Envelope::Session->new($server)->send(q{SELECT envelope_decrypt('t1', v) FROM sealed}) } 1 .. 3;
is(join(' ', map { $_->wait } @back), 'x x x', 'all have the key');
is(calls($server, 'unwrap'), 1, 'by one call');
$_->quit for @killed, @back;

# Nobody is left who wants it: the key comes to the cache all the same, and no
# slot is lost, however often this happens.
set_faults($server, 'platform:delay=100');
my $hurried = Envelope::Session->new($server);
$hurried->query(q{SET statement_timeout = '20ms'});
my %ends;
for (1 .. 300)
{
	$hurried->query('SELECT envelope_evict_all()');
	$ends{ $hurried->query(q{SELECT envelope_decrypt('t1', v) FROM sealed}) }++;
}
is(join(' ', sort keys %ends), '57014', 'three hundred give up');
$hurried->quit;
is(sqlstate($server, q{SELECT envelope_decrypt('t2', w) FROM sealed}), 'y', 'nobody who gave up holds a slot');
set_faults($server, '');
ok(eventually(sub { sqlstate($server, q{SELECT envelope_decrypt('t1', v) FROM sealed}) eq 'x' }), 'all is well afterwards');

# A deadline ends the wait, by an error that says what to retry.
set_faults($server, 'platform:stalled');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
my $start = now();
is(sqlstate($server, q{SET envelope.kms_timeout = '700ms'; SELECT envelope_decrypt('t1', v) FROM sealed}), 'VE003', 'a KMS that hangs is unreachable');
cmp_ok(now() - $start, '<', 5, 'when the time is over');

$server->stop;
done_testing();
