# Every function of the extension, with random arguments, by several sessions at
# once, while keys are evicted, tenants suspended, KEKs denied or out of reach and
# sessions cancelled or ended: it gives a result or an error that the
# documentation knows, and leaves nothing behind.
#
# The environment variable FUZZ_SEED repeats a run, as far as several sessions
# repeat; FUZZ_SECONDS makes it longer; FUZZ_GROWTH_KB is what memory may grow by.

use strict;
use warnings;
use Envelope;
use Fuzz;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $SESSIONS = 4;
my $seconds = $ENV{FUZZ_SECONDS} // (($ENV{TEST_WHEN} // '') eq 'all' ? 300 : 8);
my $seed = $ENV{FUZZ_SEED} // int(time * 1000) % 1_000_000_000;
srand $seed;
note "FUZZ_SEED=$seed";
# A session lives as long as the test, for which it has patience.
$Envelope::PATIENCE += $seconds;

# What a call may end in
my $ALLOWED = qr/^(?:
	VE00[1-9]
	| 0A000		# not here: SERIALIZABLE, prepared
	| 22...		# of the arguments
	| 23...		# of a table's constraints
	| 25...		# of the transaction: read-only, failed, under way
	| 2BP01		# something hangs on it
	| 2D000		# a procedure that commits, in a transaction
	| 39P01		# a trigger function called
	| 34000 | 3D000 | 3F000	# no such cursor, database, schema
	| 40001 | 40P01
	| 42...		# of the statement, and of rights
	| 54...		# too long
	| 55...		# not in this state; locked by another
	| 57014 | 57P01	# cancelled, ended
)$/x;

my $server = new_server('fuzz', "envelope.kms_timeout = '200ms'", 'envelope.cache_size = 4', 'envelope.kms_connections = 1',
	'max_prepared_transactions = 10', 'log_error_verbosity = verbose', "log_line_prefix = ''", 'log_statement = none',
	'statement_timeout = 2s', 'lock_timeout = 300ms', 'restart_after_crash = on');
make_kek($server->{keks}, 'eu');
$server->safe_psql('postgres', q{
	CREATE ROLE app; CREATE ROLE operator; CREATE ROLE admin; CREATE ROLE nobody;
	SELECT envelope_grant('app', 'use'), envelope_grant('operator', 'operate'), envelope_grant('admin', 'admin');
	SELECT envelope_create_kek('eu', 'local://eu');
	SELECT envelope_create_tenants(array['t1', 't2', '7', '00000000-0000-0000-0000-000000000001']), envelope_create_tenants(array['t3', 't4', 'Zürich'], 'eu');
	CREATE TABLE kept AS SELECT row_number() OVER ()::int AS i, v FROM unnest(array['t1', 't2', 't3', 't4', '7', 'Zürich']) t,
		LATERAL (VALUES (envelope_encrypt(t, 'x', 'c')), (envelope_encrypt(t, '\x00ff'::bytea)), (envelope_encrypt_deterministic(t, 'ü€😀', 'c')), (envelope_encrypt(t, repeat('x', 5000)))) s (v);
	CREATE TABLE plain (id int PRIMARY KEY, tenant text NOT NULL, a text, b text);
	INSERT INTO plain VALUES (1, 't1', 'a', 'b');
	CREATE VIEW opened AS SELECT * FROM plain;
	GRANT SELECT ON kept TO app, operator, admin, nobody;
});
my $fuzz = new_fuzz($server, 'postgres');
cmp_ok(scalar @{ $fuzz->{functions} }, '>', 60, 'there are functions to call');

# Of what has been found this way
for (
	[ '42804', 'envelope.open_row(7::bigint)' ], [ '42804', q{envelope.open_row('x'::text)} ],
	[ '42P01', q{envelope_protect(0, 'tenant', '{a}')} ], [ '42809', q{envelope_protect('opened', 'tenant', '{a}')} ])
{
	my ($state, $call) = @$_;
	is(sqlstate($server, "SELECT $call"), $state, $call);
}

# What happens meanwhile
my @faults = ('', '', 'platform:denied', 'platform:unreachable', 'platform:stalled', 'platform:corrupt', 'platform:delay=50;eu:denied', 'eu:stalled');
my $control = Envelope::Session->new($server);
my @sessions = map { Envelope::Session->new($server) } 1 .. $SESSIONS;
my @events = (
	sub { $control->query('SELECT envelope_evict_all()') },
	sub { $control->query(q{SELECT envelope_suspend_tenant('} . pick('t1', 't3') . q{')}) },
	(sub { $control->query("SELECT envelope_resume_tenant(tenant_id) FROM envelope.tenants WHERE state = 'suspended'") }) x 2,
	sub {
		$server->append_conf('postgresql.conf', q{envelope.local_kek_faults = '} . pick(@faults) . "'\n");
		$server->reload;
	},
	sub { $control->query('SELECT pg_cancel_backend(' . pick(@sessions)->{pid} . ')') },
	sub { $control->query('SELECT pg_terminate_backend(' . pick(@sessions)->{pid} . ')') if rand > 0.8 },
	sub {
		my $worker = worker_pid($server);
		kill 'TERM', $worker if $worker && rand > 0.9;
	},
	sub { });

# A session that was ended gets a successor, which is the only repair.
my $statements = 0;
my $until = time + $seconds;
while (time < $until)
{
	for my $session (@sessions)
	{
		$session->send(join ";\n", map { random_statement($fuzz) } 1 .. 15);
		$statements += 15;
	}
	pick(@events)->() for 1 .. 3;
	for my $session (@sessions)
	{
		next if $session->wait ne 'connection lost' && $session->{run}->pumpable && $session->{err} !~ /57P01/;
		$session->quit;
		$session = Envelope::Session->new($server);
	}
}
note "$statements statements";
$_->quit for @sessions;

# Nothing is left of it.
my $log = slurp_file($server->logfile);
my %unexpected;
while ($log =~ /^(ERROR|FATAL|PANIC):  (\w{5}): (.*(?:\n.+)*?\n(?:STATEMENT: .*)?)/mg)
{
	$unexpected{$2} //= $3 unless $1 ne 'PANIC' && $2 =~ $ALLOWED;
}
delete $unexpected{'57P03'};	# not the functions': a session that came too early
is(join("\n", map { "$_: $unexpected{$_}" } sort keys %unexpected), '', "no unexpected error, FUZZ_SEED=$seed");
unlike($log, qr/was terminated by signal|TRAP:|WARNING:.*(?:leak|still referenced|refcount|still active)/, 'no crash and no leak');
$server->append_conf('postgresql.conf', "envelope.local_kek_faults = ''\n");
$server->reload;
ok(eventually(sub { $server->safe_psql('postgres', 'SELECT requests FROM envelope.get_server()') == 0 }), 'no slot of the queue is lost');
$control->query("SELECT envelope_resume_tenant(tenant_id) FROM envelope.tenants WHERE state = 'suspended'");
is($server->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype <> 'virtualxid'}), 0, 'no lock is held');

# The memory of a session is the same after many more of the same calls.
sub anonymous_kb
{
	my ($session) = @_;
	return slurp_file("/proc/$session->{pid}/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 : 0;
}

sub call_all
{
	my ($session, $times, @calls) = @_;
	for my $call (@calls)
	{
		$session->query(qq{DO \$loop\$ BEGIN FOR i IN 1 .. $times LOOP BEGIN EXECUTE \$call\$$call\$call\$; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END \$loop\$});
	}
	return;
}

# How long a call of it takes, once
sub duration
{
	my ($session, $call) = @_;
	my $start = time;
	call_all($session, 1, $call);
	return time - $start;
}

my $session = Envelope::Session->new($server);
$session->query('SET statement_timeout = 0; SET client_min_messages = error');
# Those that wait for a KMS would take minutes.
my @calls = grep { duration($session, $_) < 0.1 } grep { !/^CALL/ } map { random_call($fuzz) } 1 .. ($seconds > 60 ? 400 : 100);
call_all($session, 5, @calls) for 1 .. 2;
my $limit = $ENV{FUZZ_GROWTH_KB} // 1024;
my ($before, $growth);
# What is lost is lost each time; caches of the server come to an end.
for (1 .. 3)
{
	$before = anonymous_kb($session);
	call_all($session, 10, @calls) for 1 .. 4;
	$growth = anonymous_kb($session) - $before;
	last if $growth < $limit;
}
SKIP: {
	skip 'the memory of a process is not shown here', 1 unless $before;
	cmp_ok($growth, '<', $limit, "calls leave no memory behind: of $before kB, FUZZ_SEED=$seed");
}
$_->quit for $session, $control;

$server->stop;
done_testing();
