# Keys are in memory where they may be, as long as they may be, and nowhere else:
# what processes of the server hold is read and searched for keys that are known.

use strict;
use warnings;
use Envelope;
use Fcntl qw(SEEK_SET);
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('memory');
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenant('t1');
	CREATE TABLE sealed AS SELECT envelope_encrypt('t1', 'x') AS v, envelope_encrypt_deterministic('t1', 'y') AS d;
});
our %secrets = secrets_of($server, 't1');
my $use = q{SELECT envelope_decrypt('t1', v), envelope_decrypt('t1', d), envelope_blind_index('t1', 'z') IS NOT NULL FROM sealed};

# found PID: how often each secret is in memory of a process: of the mapping that
# is left out of core files ("cache NAME"), and of all else that can be written
# to.
sub found
{
	my ($pid) = @_;
	my %found;
	my @areas;
	open my $smaps, '<', "/proc/$pid/smaps" or return;
	while (my $line = <$smaps>)
	{
		push @areas, { from => hex $1, to => hex $2, shared => $4 eq 's', writable => $3 eq 'w' }
		  if $line =~ /^([0-9a-f]+)-([0-9a-f]+) r(.).(.) /;
		push @areas, {} if $line =~ /^[0-9a-f]+-[0-9a-f]+ -/;
		$areas[-1]{dontdump} = 1 if $line =~ /^VmFlags:.*\bdd\b/;
	}
	open my $memory, '<:raw', "/proc/$pid/mem" or return;
	for my $area (grep { $_->{writable} } @areas)
	{
		my $cache = $area->{shared} && $area->{dontdump};
		sysseek $memory, $area->{from}, SEEK_SET or next;
		my $bytes = '';
		while (length $bytes < $area->{to} - $area->{from})
		{
			sysread($memory, $bytes, $area->{to} - $area->{from} - length $bytes, length $bytes) or last;
		}
		$found{'cache bytes'} += length $bytes if $cache;
		for my $name (keys %secrets)
		{
			my $at = -1;
			$found{ $cache ? "cache $name" : $name }++ while ($at = index($bytes, $secrets{$name}, $at + 1)) >= 0;
		}
	}
	return \%found;
}

# what FOUND: in words
sub what
{
	my ($found) = @_;
	return join(', ', map { "$_: $found->{$_}" } grep { $_ ne 'cache bytes' } sort keys %$found);
}

my $session = Envelope::Session->new($server);
my $other = Envelope::Session->new($server);
plan skip_all => 'the memory of another process cannot be read here' unless found($session->{pid});
my $warm = 'cache gcm: 1, cache index: 1, cache siv: 1';

is($session->query($use), 'x|y|t', 'the keys are in use');
my $found = found($session->{pid});
cmp_ok($found->{'cache bytes'}, '>', 0, 'there is memory that is left out of core files');
is(what($found), $warm, 'in it are the subkeys, once, and a session between transactions has nothing else');
is(what(found($other->{pid})), $warm, 'nor has one that used none');
is(what(found($server->{_pid})), $warm, 'nor the postmaster');
ok(!open(my $memory, '<', '/proc/' . worker_pid($server) . '/mem'), 'the worker shows its memory to nobody');

# A transaction holds what it uses, and gives it up with its end, whatever end.
my %ends = (
	'COMMIT' => 'COMMIT',
	'ROLLBACK' => 'ROLLBACK',
	'an error' => 'SELECT 1/0; ROLLBACK',
	'an error of ours' => q{SELECT envelope_decrypt('t1', v, 'other') FROM sealed; ROLLBACK});
for my $end (sort keys %ends)
{
	$session->query("BEGIN; SAVEPOINT s; $use");
	cmp_ok(found($session->{pid})->{siv} // 0, '>', 0, 'a transaction has a key of its own');
	$session->query($ends{$end});
	is(what(found($session->{pid})), $warm, "and none after $end");
}
$session->send("BEGIN; $use; SELECT pg_sleep(600)");
ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND wait_event = 'PgSleep'") }),
	'a statement runs');
$server->safe_psql('postgres', "SELECT pg_cancel_backend($session->{pid})");
is($session->wait, '57014', 'and is cancelled');
$session->query('ROLLBACK');
is(what(found($session->{pid})), $warm, 'none after that');

# Many that share one request: its place in the queue is wiped as well.
set_faults($server, 'platform:delay=300');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
is(what(found($session->{pid})), '', 'evicted, all are gone');
$_->send($use) for $session, $other;
is($_->wait, 'x|y|t', 'asked for together') for $session, $other;
is(what(found($session->{pid})), $warm, 'they are there once');
my $hurried = Envelope::Session->new($server);
set_faults($server, 'platform:delay=1700');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
$hurried->query(q{SET statement_timeout = '1s'});
is($hurried->query(q{SELECT envelope_decrypt('t1', v) FROM sealed}), '57014', 'asked for by one that gives up');
my $where = '';
ok(eventually(sub { ($where = what(found($session->{pid}))) eq 'cache gcm: 1' }), 'they are in the cache only') or diag $where;
set_faults($server, '');

# Making a key leaves nothing of it.
is($server->safe_psql('postgres', q{SELECT envelope_create_tenant('t2') > 0; SELECT envelope_evict_all() >= 0}), "t\nt", 'a tenant is made');
{
	local %secrets = secrets_of($server, 't2');
	is(what(found($other->{pid})), '', 'and its keys are nowhere');
	is($other->query(q{SELECT envelope_encrypt('t2', 'x') IS NOT NULL}), 't', 'until they are used');
	is(what(found($other->{pid})), 'cache gcm: 1', 'the one that is');
}

# Suspended, expired
$session->query($use);
is(what(found($session->{pid})), $warm, 'in memory again');
$server->safe_psql('postgres', q{SELECT envelope_suspend_tenant('t1')});
is(what(found($session->{pid})), '', 'a suspension wipes them');
$server->safe_psql('postgres', q{SELECT envelope_resume_tenant('t1')});
$server->append_conf('postgresql.conf', "envelope.cache_ttl = '1s'\n");
$server->reload;
set_faults($server, '');
$session->query($use);
ok(eventually(sub { what(found($session->{pid})) eq '' }), 'so does the end of their time, read or not');

# A crash
$server->append_conf('postgresql.conf', "envelope.cache_ttl = '1h'\nrestart_after_crash = on\n");
$server->reload;
set_faults($server, '');
is($session->query($use), 'x|y|t', 'in memory for long');
is(what(found($session->{pid})), $warm, 'they are');
kill 'KILL', $other->{pid};
ok(comes_back($server), 'a crash, and a new start');
$_->quit for $session, $other, $hurried;
$session = Envelope::Session->new($server);
is(what(found($session->{pid})), '', 'leave none of them');
is(what(found($server->{_pid})), '', 'nor does the postmaster, whose memory it is');
is($session->query($use), 'x|y|t', 'and they are had again');
$session->quit;

$server->stop;
done_testing();
