# Known plaintexts, keys and credentials are put through every function, in
# every situation and through every failure, and then sought wherever they must
# not be.  At last they are leaked on purpose, to show that they would have been
# found.

use strict;
use warnings;
use Canary;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

# The server inherits the limit.
system 'prlimit', "--pid=$$", '--core=unlimited:';

my $credentials = PostgreSQL::Test::Utils::tempdir . '/credentials.json';
my $server = new_server('canaries', "envelope.credentials_file = '$credentials'", 'envelope.log_kms_calls = on', "shared_preload_libraries = 'pg_stat_statements, envelope'",
	'pg_stat_statements.track = all', 'log_min_messages = debug5', 'log_error_verbosity = verbose',
	'log_min_duration_statement = 0', 'log_parameter_max_length_on_error = -1', 'track_activity_query_size = 64kB',
	'wal_keep_size = 1GB', 'max_prepared_transactions = 10', 'restart_after_crash = on', 'compute_query_id = on');
$server->safe_psql('postgres', q{
	CREATE EXTENSION pg_stat_statements;
	CREATE ROLE app;
	SELECT envelope_create_tenants(array['t1', 't2'])});
my %keys = secrets_of($server, 't1');
my %secrets = (%keys, plant_canaries($server, 'postgres'));
my $search = search(%secrets);
append_to_file($credentials, qq{{"profiles": {"vault": {"hosts": ["127.0.0.1:1"], "token": "$secrets{token}"}}}});
chmod 0600, $credentials;
my $search_keys = search(map { $_ => $keys{$_} } grep { $_ ne 'kek' } keys %keys);

# What PostgreSQL itself leaves of used memory in WAL is told from a leak.
my $made = PostgreSQL::Test::Utils::tempdir;
mkdir "$made/$_" for 'pg_wal', 'base', 'base/16384';
my $segment = "$made/pg_wal/000000010000000000000001";
my ($before, $id, $after) = unpack 'a4Ca3', $secrets{long};
append_to_file($segment, join '', map { pack 'Ca3LLa4', $id, $after, $_, 0x12345678, $before } 0, 16384, 16384, 0);
is(found_in($search, slurp_file($segment)), 'long', 'padding in WAL has eight bytes of a secret');
is(found_in_files($search, $made), '', 'which are passed over');
append_to_file($segment, substr $secrets{long}, 0, 12);
is(found_in_files($search, $made), 'long', 'and twelve are not');

# in_session CALLS: send each, in one session; what ended otherwise.
sub in_session
{
	my ($session, @calls) = @_;
	my $otherwise = '';
	for my $call (@calls)
	{
		my ($expected, $sql) = @$call;
		my $result = $session->query($sql);
		my $state = $result =~ /^(?:\w{5}|connection lost)$/ && $result !~ /^[a-z]/ ? $result : '';
		$otherwise .= "$state, not $expected: $sql\n" if $state ne $expected;
	}
	return $otherwise;
}

for my $situation (@$Canary::SITUATIONS)
{
	my $session = Envelope::Session->new($server);
	set_faults($server, $situation->{faults}) if $situation->{faults};
	$session->query('SELECT envelope_evict_all()');
	$session->query($situation->{before}) if $situation->{before};
	is(in_session($session, calls_in($situation)), '', "every function: $situation->{name}");
	$session->query($situation->{after}) if $situation->{after};
	$session->quit;
	set_faults($server, '') if $situation->{faults};
}

my $session = Envelope::Session->new($server);
is(in_session($session, @$Canary::FEATURES), '', 'all else');
is(in_session($session, [ '', $Canary::ALL_FUNCTIONS ]), '', 'every function by its arguments');

# Reports over what cannot be opened
set_faults($server, 'platform:denied');
is(in_session($session, [ '', q{SELECT envelope_evict_all(); SET envelope.unreadable = 'null'; SELECT envelope_decrypt('t1', t, 'c') IS NULL FROM kept; RESET envelope.unreadable} ]),
	'', 'null where it is denied');
is(in_session($session, [ 'VE002', q{SELECT envelope_create_tenant('t3')} ]), '', 'no tenant is made');
set_faults($server, '');

# Databases of other encodings
$server->safe_psql('postgres', q{CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0; CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0});
for my $database ('latin1', 'ascii')
{
	my $folder = PostgreSQL::Test::Utils::tempdir;
	$server->safe_psql('postgres', q{DROP TABLE IF EXISTS euro; CREATE TABLE euro AS SELECT envelope_encrypt('t1', canary.text() || '€', 'c') AS t});
	$server->command_ok([ 'pg_dump', '-f', "$folder/dump", 'postgres' ], 'a dump');
	$server->command_ok([ 'psql', '-Xq', '-d', $server->connstr($database), '-f', "$folder/dump" ], "into $database");
	is(sqlstate($server, q{SELECT envelope_decrypt('t1', t, 'c') = canary.text() FROM kept}, connstr => $server->connstr($database)), 't', "it opens in $database");
}
is(sqlstate($server, q{SELECT envelope_decrypt('t1', t, 'c') FROM euro}, connstr => $server->connstr('latin1')), '22P05', 'a character that an encoding lacks');
is(sqlstate($server, q{SELECT envelope_encrypt('t1', canary.text() || chr(255), 'c')}, connstr => $server->connstr('ascii')), '22021', 'text that is no UTF-8');

# Ends of a session, a worker and a server
set_faults($server, 'platform:stalled');
$session->query('SELECT envelope_evict_all()');
$session->send(q{BEGIN; SELECT canary.text(), envelope_decrypt('t1', t, 'c') FROM kept});
ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND wait_event_type = 'Extension'") }), 'a session waits');
$server->safe_psql('postgres', "SELECT pg_terminate_backend($session->{pid})");
is($session->wait, '57P01', 'and is ended');
my $worker = worker_pid($server);
kill 'TERM', $worker;
ok(eventually(sub { my $now = worker_pid($server); $now ne '' && $now ne $worker }), 'a worker ends');
set_faults($server, '');

# A crash forgets what pg_stat_statements has counted.
is(found_in($search, $server->safe_psql('postgres', 'COPY (SELECT * FROM pg_stat_statements) TO STDOUT')), '', 'no secret is in pg_stat_statements so far');

# Core files, one of each kind of process.  Where the kernel hands them to
# a program, or none may be made, there are none to search.
my $core = $server->data_dir . '/core';
my $session2;

sub crash
{
	my ($pid) = @_;
	kill 'SEGV', $pid;
	ok(eventually(sub { !-e "/proc/$pid" }), 'a process crashes');
	my ($file) = glob "$core*";
	return $file;
}

sub use_keys
{
	my ($before) = @_;
	comes_back($server) or die 'no new start';
	$session2 = Envelope::Session->new($server);
	return $session2->query("$before; SELECT envelope_decrypt('t1', t, 'c') = canary.text() AND envelope_decrypt('t1', d, 'c') = canary.text() AND envelope_blind_index('t1', 'x') IS NOT NULL FROM kept");
}

my $have_cores = slurp_file('/proc/sys/kernel/core_pattern') =~ /^core\b/ && slurp_file('/proc/self/limits') =~ /^Max core file size\s+unlimited/m;
SKIP: {
	skip 'no core files here', 10 unless $have_cores;

	is(use_keys(q{SELECT 1}), "1\nt", 'keys are in the cache');
	my $file = crash($session2->{pid});
	ok($file && -s $file, 'a backend leaves a core file');
	is(found_in_files($search_keys, $file), '', 'no key is in the core file of a backend that uses none');
	unlink $file;

	is(use_keys('BEGIN'), 't', 'keys are in use');
	$file = crash($session2->{pid});
	like(found_in_files($search_keys, $file), qr/siv/, 'what a transaction uses is in the core file of its backend: a leak is found');
	unlink $file;

	is(use_keys(q{SELECT 1}), "1\nt", 'keys are in the cache');
	crash(worker_pid($server));
	is(join(' ', glob "$core*"), '', 'the worker leaves no core file');

	is(use_keys(q{SELECT 1}), "1\nt", 'keys are in the cache');
	$file = crash($server->{_pid});
	ok($file && -s $file, 'the postmaster leaves a core file');
	is(found_in_files($search, $file), '', 'no secret is in the core file of the postmaster');
	unlink $file;
	$server->{_pid} = undef;
	$server->start;
}

# places: where to look, and what was found there.
my $folder = PostgreSQL::Test::Utils::tempdir;

sub places
{
	my $table = sub { return $server->safe_psql('postgres', "COPY (SELECT * FROM $_[0]) TO STDOUT") };
	$server->safe_psql('postgres', 'CHECKPOINT');
	command_ok([ 'pg_dump', '-f', "$folder/dump", $server->connstr('postgres') ], 'pg_dump');
	command_ok([ 'pg_dumpall', '-f', "$folder/dumpall", '-d', $server->connstr('postgres') ], 'pg_dumpall');
	my %found = (
		'a dump' => found_in_files($search, "$folder/dump"),
		'a dump of the cluster' => found_in_files($search, "$folder/dumpall"),
		'WAL' => found_in_files($search, $server->data_dir . '/pg_wal'),
		'the data directory' => found_in_files($search, grep { !m{/pg_wal$} } glob $server->data_dir . '/*'),
		'the server log' => found_in_files($search, $server->logfile),
		pg_statistic => found_in($search, map { $table->($_) } 'pg_statistic', 'pg_statistic_ext_data'),
		pg_stat_statements => found_in($search, $table->('pg_stat_statements')),
		pg_stat_activity => found_in($search, $table->('pg_stat_activity')),
		'our tables and views' => found_in($search, map { $table->($_) }
				split /\n/, $server->safe_psql('postgres', q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'envelope'::regnamespace AND relkind IN ('r', 'v')})));
	return \%found;
}

@Canary::SEEN = ();
my $found = places();
is($found->{$_}, '', "no secret is in $_") for sort keys %$found;
diag $_ for @Canary::SEEN;

# The leaks: what was sealed stands in tables, key files were read, errors tell.
my %written;
for my $name (keys %keys)
{
	$written{$name} = "$folder/" . $name =~ tr/ /_/r;
	append_to_file($written{$name}, $secrets{$name});
}
my $all_names = join ', ', sort keys %secrets;
$server->safe_psql('postgres', q{
	CREATE TABLE leak AS SELECT canary.text() || ' ' || canary.token() || ' ' || substring(canary.long() FOR 36) AS t, canary.bytes() AS b FROM generate_series(1, 500);}
	  . join('', map { "INSERT INTO leak SELECT '', pg_read_binary_file('$_') FROM generate_series(1, 500);" } values %written) . q{
	ANALYZE leak;
	DO $$ DECLARE r record; BEGIN
		FOR r IN SELECT DISTINCT t, b FROM leak LOOP
			RAISE LOG '% %', r.t, encode(r.b, 'base64');
			EXECUTE format('COMMENT ON TABLE leak IS %L', r.t || encode(r.b, 'hex'));
		END LOOP;
	END $$});
my $idle = Envelope::Session->new($server);
$idle->query('SELECT 1 /* ' . join(' ', @secrets{ 'text', 'token', 'long' }, map { unpack 'H*', $secrets{$_} } 'bytes', keys %keys) . ' */');
$found = places();
is($found->{$_}, $all_names, "every one that is leaked is found in $_") for grep { $_ ne 'our tables and views' } sort keys %$found;
$idle->quit;

# PostgreSQL's own errors about opened values
is(sqlstate($server, q{SELECT envelope_decrypt('t1', t, 'c')::int FROM kept}), '22P02', 'a cast of an opened value fails');
like(slurp_file($server->logfile), qr/invalid input syntax for type integer: "\Q$secrets{text}\E"/, 'and PostgreSQL shows it, as the documentation says');

$server->stop;
done_testing();
