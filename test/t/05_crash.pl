# Nothing that dies takes more with it than it must: backends, the worker, the
# server.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $server = new_server('crash', 'restart_after_crash = on', 'max_prepared_transactions = 5');
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array['t1', 't2', 't3']);
	CREATE TABLE sealed AS SELECT envelope_encrypt('t1', 'x') AS v;
});
my $open = q{SELECT envelope_decrypt('t1', v) FROM sealed};

sub server_is_back
{
	return comes_back($server);
}

# starting_worker SERVER SEEN: the process id of a worker that is not in SEEN,
# from the moment when it says what it is.
sub starting_worker
{
	my ($server, $seen) = @_;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		my ($pid) = $stat =~ m{(\d+)};
		next if $seen->{$pid};
		open my $file, '<', $stat or next;
		my $line = <$file> // '';
		next unless $line =~ /\) \w (\d+) / && $1 == $server->{_pid};
		open $file, '<', "/proc/$pid/cmdline" or next;
		return $pid if (<$file> // '') =~ /envelope KMS worker/;
	}
	return;
}

# The worker is ended again and again while it works: every request ends as
# done or unreachable, in its time.
my @sessions = map { Envelope::Session->new($server) } 1 .. 4;
$_->query(q{SET envelope.kms_timeout = '3s'}) for @sessions;
set_faults($server, 'platform:delay=50');
my (%ends, %pids);
my $longest = 0;
for my $round (1 .. 25)
{
	my $start = now();
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	$_->send($open) for @sessions;
	my $pid = worker_pid($server);
	if ($pid ne '') { $pids{$pid} = 1; kill 'TERM', $pid; }
	$ends{ $_->wait }++ for @sessions;
	$longest = now() - $start if now() - $start > $longest;
}
is(join(' ', sort grep { $_ ne 'VE003' } keys %ends), 'x', 'every request has its key or is told to come back');
cmp_ok($longest, '<', 3 + 3, 'in time');
cmp_ok(scalar(keys %pids), '>', 5, 'although the worker was started anew many times');
ok(eventually(sub { sqlstate($server, $open) eq 'x' }), 'it serves again');
like(slurp_file($server->logfile), qr/envelope KMS worker" \(PID \d+\) exited with exit code 1/, 'alone it was started again');
unlike(slurp_file($server->logfile), qr/terminating any other active server processes/, 'without the server');

# Ended again and again before it has come to work, and told to read its
# configuration: the same.
%ends = %pids = ();
$longest = 0;
for my $round (1 .. 25)
{
	my $start = now();
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	$_->send($open) for @sessions;
	my $pid = eventually(sub { starting_worker($server, \%pids) });
	if ($pid) { $pids{$pid} = 1; kill $_, $pid for 'HUP', 'TERM'; }
	$ends{ $_->wait }++ for @sessions;
	$longest = now() - $start if now() - $start > $longest;
}
is(join(' ', sort grep { $_ !~ /^(VE003|x)$/ } keys %ends), '', 'ended while it starts: has its key or is told to come back');
cmp_ok($longest, '<', 3 + 3, 'in time');
cmp_ok(scalar(keys %pids), '>', 5, 'although the worker was started anew many times');
ok(eventually(sub { sqlstate($server, $open) eq 'x' }), 'it serves again');

# One that waits for the KMS is killed: the server restarts, and memory is empty.
set_faults($server, 'platform:delay=3000');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
$sessions[0]->send($open);
ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $sessions[0]{pid} AND wait_event_type = 'Extension'") }),
	'a backend waits for the KMS');
kill 'KILL', $sessions[0]{pid};
ok(server_is_back(), 'a backend is killed, the server comes back');
is($server->safe_psql('postgres', 'SELECT used FROM envelope.cache_stats'), 0, 'without keys in memory');
$_->quit for @sessions;
set_faults($server, '');
is(sqlstate($server, $open), 'x', 'and gets them again');

# The worker is killed with a request in flight.
set_faults($server, 'platform:delay=3000');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
my $session = Envelope::Session->new($server);
$session->send($open);
eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND wait_event_type = 'Extension'") });
kill 'KILL', worker_pid($server);
like($session->wait, qr/connection lost|57P02/, 'the worker is killed: PostgreSQL restarts the server');
ok(server_is_back(), 'and it comes back');
$session->quit;
set_faults($server, '');
is(sqlstate($server, $open), 'x', 'and works');

# A tenant made in a prepared transaction, the server killed in between
$server->safe_psql('postgres', q{
	BEGIN; SELECT envelope_create_tenant('p1'); PREPARE TRANSACTION 'p1';
	BEGIN; SELECT envelope_create_tenant('p2'); PREPARE TRANSACTION 'p2'});
$server->stop('immediate');
$server->start;
$server->safe_psql('postgres', q{COMMIT PREPARED 'p1'});
$server->safe_psql('postgres', q{ROLLBACK PREPARED 'p2'});
is(sqlstate($server, q{SELECT envelope_decrypt('p1', envelope_encrypt('p1', 'x'))}), 'x', 'committed afterwards it is there');
is(sqlstate($server, q{SELECT envelope_encrypt('p2', 'x')}), 'VE001', 'rolled back it is not');
is(sqlstate($server, $open), 'x', 'what was sealed before the crash opens');

# The postmaster is killed.  It can be started again once its children have
# noticed.
my $postmaster = $server->{_pid};
$server->kill9;
ok(eventually(sub { !kill(0, $postmaster) }), 'the postmaster is killed');
ok(eventually(sub { $server->start(fail_ok => 1) }), 'and started again');
is(sqlstate($server, $open), 'x', 'it works');

# While a KMS hangs: databases come and go, and the server stops at once.
set_faults($server, 'platform:stalled');
for my $mode ('smart', 'fast', 'immediate')
{
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	my $waiting = Envelope::Session->new($server);
	$waiting->send($open);
	eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $waiting->{pid} AND wait_event_type = 'Extension'") });
	my $start = now();
	if ($mode eq 'smart')
	{
		$server->safe_psql('postgres', 'CREATE DATABASE made');
		$server->safe_psql('postgres', 'DROP DATABASE made');
		cmp_ok(now() - $start, '<', 10, 'CREATE and DROP DATABASE do not wait for the KMS');
		$waiting->quit;
		$start = now();
	}
	$server->stop($mode);
	cmp_ok(now() - $start, '<', 10, "$mode shutdown neither");
	$waiting->quit;
	$server->start;
}
set_faults($server, '');
is(sqlstate($server, $open), 'x', 'and all is well again');

$server->stop;
done_testing();
