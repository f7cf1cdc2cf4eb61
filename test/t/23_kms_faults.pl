# What goes wrong between a server and its KMSs, each thing for each kind of KMS:
# it is told for what it is, never taken for a denial, holds up nobody else, and
# ends by itself.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $fs = fault_server();
my $folder = PostgreSQL::Test::Utils::tempdir;
command_ok([ 'gcc', '-shared', '-fPIC', '-o', "$folder/slow_resolver.so", "$EnvelopeKms::KMS/slow_resolver.c", '-ldl' ], 'a resolver that hangs');

# Each fault, at a key of its own, by a profile of its own: endpoints that fail
# are not asked for a while, per credential.
my @away = qw(throttle unavailable html403 html502 html200 empty403 proxy407 redirect
  reset half_closed stall stall_body truncated endless garbage huge_header);
my @unreadable = qw(overlong nested nested_object not_json empty nul bad_utf8 array twice missing wrong_types);
my @wrong = qw(wrong_base64 short_dek long_dek empty_dek wrong_dek);
my @sums = qw(wrong_crc unverified);
my %kinds = (
	vault => { decrypt => 'decrypt', generate => 'datakey', uri => sub { 'hcvault://127.0.0.1:' . $fs->port('vault', 'https') . "/transit/keys/$_[0]" },
		profile => { token => 'root', hosts => [ '127.0.0.1:' . $fs->port('vault', 'https') ] },
		make => sub { http_json('POST', $fs->url('vault') . "/v1/transit/keys/$_[0]", { derived => \1 }, { 'X-Vault-Token' => 'root' }) } },
	kms => { decrypt => 'Decrypt', generate => 'GenerateDataKey', uri => sub { "aws-kms://arn:aws:kms:us-east-1:111122223333:key/$_[0]" },
		profile => { aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test', endpoint => $fs->url('kms', 'https'),
			hosts => [ '127.0.0.1:' . $fs->port('kms', 'https') ] },
		make => sub { $fs->kms_key(KeyId => $_[0]) } },
	gcp => { decrypt => 'decrypt', generate => 'encrypt', uri => sub { "gcp-kms://projects/test/locations/europe-west1/keyRings/tenants/cryptoKeys/$_[0]" },
		profile => { google_application_credentials => "$fs->{folder}/service_account.json", endpoint => $fs->url('gcp', 'https'),
			hosts => [ '127.0.0.1:' . $fs->port('gcp', 'https'), '127.0.0.1:' . $fs->port('gcptoken', 'https') ] },
		make => sub { $fs->gcp_key($_[0]) } });
my @kinds = grep { ($ENV{KINDS} // 'vault kms gcp') =~ /$_/ } sort keys %kinds;
my @cases;
for my $kind (@kinds)
{
	push @cases, map { { kind => $kind, fault => $_, at => 'decrypt' } } @away, @unreadable, @wrong, 'chunked';
	push @cases, map { { kind => $kind, fault => $_, at => 'generate' } } qw(throttle html403 stall nested missing wrong_base64),
	  $kind eq 'gcp' ? () : 'short_dek';
	push @cases, map { { kind => $kind, fault => $_, at => $_ eq 'unverified' ? 'generate' : 'decrypt' } } @sums if $kind eq 'gcp';
}
# No name is a part of another.
$_->{name} = join '-', 'f', @$_{qw(kind at)}, $_->{fault} =~ tr/_/-/r, 'x' for @cases;
my %profiles = map { $_->{name} => $kinds{ $_->{kind} }{profile} } @cases;
$profiles{$_} = $kinds{$_}{profile} for @kinds;
for my $kind (@kinds) { $profiles{"$kind-$_"} = $kinds{$kind}{profile} for 'expired', 'wrong_name', 'other_ca' }
$profiles{plain} = { token => 'root', hosts => ['192.0.2.1:8200'], endpoint => 'http://192.0.2.1:8200' };
$profiles{slow} = { token => 'root', hosts => ['vault.hang.test:8200'] };

my $server = kms_server('faults', profiles => \%profiles, ca => $fs->{ca}, env => { LD_PRELOAD => "$folder/slow_resolver.so" },
	conf => [ 'max_connections = 400', 'envelope.cache_size = 2000' ]);
my $worker = worker_pid($server);
my $user = Envelope::Session->new($server);

sub kek
{
	my ($name, $kind, $profile) = @_;
	$kinds{$kind}{make}->($name);
	my $uri = $kinds{$kind}{uri}->($name);
	return $user->query(qq{SELECT envelope_create_kek('$name', '$uri', '{"profile": "$profile"}')});
}

# --- every fault, at once -------------------------------------------------------

# Check all KEKs, many at once.
sub check_all
{
	my ($timeout) = @_;
	my @waiting = @cases;
	while (my @batch = splice @waiting, 0, 30)
	{
		$_->{session} = Envelope::Session->new($server)->send("SET envelope.kms_timeout = '$timeout'; SELECT outcome, detail FROM envelope_check_kek('$_->{name}')") for @batch;
		for my $case (@batch)
		{
			(@$case{qw(outcome detail)}) = split /\|/, $case->{session}->wait, 2;
			$case->{session}->quit;
		}
	}
	return;
}

kek($_->{name}, $_->{kind}, $_->{name}) for @cases;
check_all('20s');
is(join(' ', map { $_->{name} } grep { $_->{outcome} ne 'ok' } @cases), '', 'all is well at first');
for my $case (@cases)
{
	$fs->fault($case->{kind}, $case->{fault}, operation => $kinds{ $case->{kind} }{ $case->{at} }, key => $case->{name},
		$case->{fault} eq 'redirect' ? (location => $fs->url('imds') . '/latest/api/token') : ());
}
check_all('2s');
for my $case (@cases)
{
	my %expected = (chunked => 'ok', map { $_ => 'unreachable' } @away);
	# What was wrapped wrongly shows when it is unwrapped.
	my $expected = $expected{ $case->{fault} } // ($case->{at} eq 'decrypt' ? 'corrupt|unreachable' : 'unreachable|corrupt|misconfigured');
	$expected = 'corrupt' if $case->{fault} =~ /^(?:short|long|empty|wrong)_dek$/ && $case->{at} eq 'decrypt';
	like($case->{outcome}, qr/^(?:$expected)$/, "$case->{kind}, at $case->{at}: $case->{fault} is $case->{outcome}") or diag $case->{detail};
	note $case->{detail};
}
is($fs->calls('imds'), 0, 'no redirect was followed');
is(worker_pid($server), $worker, 'the worker has borne it all');
$fs->well;
ok(eventually(sub { check_kek($server, $_->{name}) eq 'ok' }), "$_->{name}: well again") for grep { $_->{fault} =~ /^(?:stall|html403|short_dek)$/ } @cases;

# --- a herd, and batches ---------------------------------------------------------

for my $kind (@kinds)
{
	kek($kind, $kind, $kind);
	$server->safe_psql('postgres', "SELECT envelope_create_tenant('$kind', '$kind'); CREATE TABLE ${kind}_sealed AS SELECT envelope_encrypt('$kind', 'of $kind') AS v");
	my $script = "$folder/$kind.sql";
	append_to_file($script, "SELECT 1 / (envelope_decrypt('$kind', v) = 'of $kind')::int FROM ${kind}_sealed;\n");
	$fs->fault($kind, 'latency', operation => $kinds{$kind}{decrypt}, ms => 500);
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	my $asked = sub { scalar grep { $_->{operation} eq $kinds{$kind}{decrypt} && $_->{key} =~ m{(?:^|/)$kind$} } $fs->log($kind) };
	my $before = $asked->();
	command_ok([ 'pgbench', '-n', '-c', 300, '-j', 1, '-t', 1, '-f', $script, $server->connstr('postgres') ], "$kind: 300 sessions want one cold key");
	is($asked->() - $before, 1, "$kind: by one call");
	$fs->well;
}
if (grep { $_ eq 'vault' } @kinds)
{
	$server->safe_psql('postgres', q{SELECT envelope_create_tenants(array(SELECT 'many' || g FROM generate_series(1, 500) g), 'vault'); SELECT envelope_evict_all()});
	my $before = $fs->calls('vault', 'decrypt');
	is($server->safe_psql('postgres', q{SELECT envelope_warm(array(SELECT 'many' || g FROM generate_series(1, 500) g))}), 1000, 'vault: a thousand keys are warmed');
	my $calls = $fs->calls('vault', 'decrypt') - $before;
	cmp_ok($calls, '<', 500, "vault: in batches ($calls calls)");
	my @batches = grep { $_->{operation} eq 'decrypt' && ($_->{items} // 0) > 1 } $fs->log('vault');
	ok(@batches > 0 && !(grep { $_->{items} > 64 } @batches), 'vault: of 64 at most');
}

# --- nobody there: refused, and a black hole -----------------------------------------

my $open = "SELECT envelope_decrypt('%1\$s', v) FROM %1\$s_sealed";

# What becomes of opening under a key that is not in memory
sub cold
{
	my ($tenant, $session) = @_;
	$session //= $user;
	$session->query("SELECT envelope_evict('$tenant')");
	return $session->query(sprintf $open, $tenant);
}

$user->query(q{SELECT envelope_create_tenant('platform')});
$user->query(q{CREATE TABLE platform_sealed AS SELECT envelope_encrypt('platform', 'of platform') AS v});
$server->safe_psql('postgres', "SELECT envelope_create_tenants(array(SELECT '$_' || g FROM generate_series(1, 20) g), '$_')") for @kinds;
$server->append_conf('postgresql.conf', "envelope.cache_ttl = '4s'\nenvelope.outage_grace = '5s'\n");
$server->reload;
ok(eventually(sub { $user->query('SHOW envelope.cache_ttl') eq '4s' }), 'keys have a short life from now on');
for my $state ('refuse', 'blackhole')
{
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	is($user->query(sprintf $open, $_), "of $_", "$_, $state: before, it opens") for @kinds;
	my $start = now();
	# A refresh that gets no answer takes longer to fail than such a short life has
	# left: see 27_blackhole.pl for a black hole.
	my $reader = $state eq 'refuse' && run_load($server, 'SELECT ' . join(', ', map { sprintf "1 / ((SELECT envelope_decrypt('%1\$s', v) FROM %1\$s_sealed) = 'of %1\$s')::int", $_ } @kinds), 6, 1, 50);
	$fs->listen($_, $state) for @kinds;
	# Others want keys that are not in memory, in vain.  Once enough calls have
	# failed nobody waits for one any more.
	my %others = map { my $kind = $_; $kind => [ map { Envelope::Session->new($server)->send("SET envelope.kms_timeout = '3s'; SELECT envelope_encrypt('$kind$_', 'x')") } 1 .. 15 ] } @kinds;
	for my $kind (@kinds)
	{
		my %ends;
		$ends{ $_->wait }++ for @{ $others{$kind} };
		is(join(' ', keys %ends), 'VE003', "$kind, $state: a cold key is unreachable");
		my $took;
		ok(eventually(sub {
					my $from = now();
					$others{$kind}[0]->query("SELECT envelope_encrypt('${kind}1', 'x')");
					$took = now() - $from;
					$took < 0.1;
				}), "$kind, $state: which is told at once, when it is known");
		note sprintf '%s, %s: a cold key fails in %.0f ms', $kind, $state, 1000 * $took;
	}
	is(cold('platform'), 'of platform', "$state: another KMS is not concerned");
	ok(!$reader || finish_load($reader), "$state: what is warm lives on past its TTL") or diag ${ $reader->{out} };
	ok(eventually(sub { $user->query(sprintf $open, $_) eq 'VE003' }), "$_, $state: to the end of the grace") for @kinds;
	cmp_ok(now() - $start, '<', 4 + 5 + 15, "$state: not longer");
	$fs->listen($_, 'open') for @kinds;
	my $back = now();
	ok(eventually(sub { $user->query(sprintf $open, $_) eq "of $_" }), "$_, $state: back, it opens by itself") for @kinds;
	note sprintf '%s: all open %.1f s after the end of the outage', $state, now() - $back;
	$_->quit for map { @$_ } values %others;
}

# A name that does not resolve holds up nobody.
$user->query(q{SELECT envelope_create_kek('slow', 'hcvault://vault.hang.test:8200/transit/keys/slow', '{"profile": "slow"}')});
my @hanging = map { Envelope::Session->new($server)->send(q{SELECT outcome FROM envelope_check_kek('slow')}) } 1 .. 20;
my $start = now();
for my $kind (@kinds)
{
	is(cold($kind), "of $kind", "$kind opens while 20 sessions wait for a resolver");
}
cmp_ok(now() - $start, '<', 15, 'at once');
is(join(' ', map { $_->wait } @hanging), join(' ', ('unreachable') x 20), 'who wait to their deadline');
$_->quit for @hanging;
is(worker_pid($server), $worker, 'the worker is the same');

# A worker that is busy with a KMS that does not answer holds up no CREATE DATABASE,
# no DROP DATABASE, and no shutdown.
$fs->fault('kms', 'stall');
$user->query('SELECT envelope_evict_all()');
@hanging = map { Envelope::Session->new($server)->send("SET envelope.kms_timeout = '60s'; " . sprintf $open, 'kms') } 1 .. 5;
$start = now();
is($user->query('CREATE DATABASE beside'), '', 'a database is created beside a KMS that hangs');
is($user->query('DROP DATABASE beside'), '', 'and dropped');
cmp_ok(now() - $start, '<', 30, 'without waiting for it');
$fs->well;
$_->quit for @hanging;

# --- who is at the other end ----------------------------------------------------------

$user->query(q{SELECT envelope_create_kek('plain', 'hcvault://192.0.2.1:8200/transit/keys/plain', '{"profile": "plain"}')});
my ($outcome, $detail) = check_kek($server, 'plain');
like($detail, qr/not asked: it is neither https nor this machine/, 'no secret goes over plain HTTP to another machine');
my @bad = map { my $kind = $_; map { [ $kind, $_ ] } 'expired', 'wrong_name', 'other_ca' } @kinds;
for my $bad (@bad)
{
	my ($kind, $certificate) = @$bad;
	kek("$kind-$certificate", $kind, "$kind-$certificate");
	$fs->control('POST', '/certificate', { name => $certificate });
	# Connections that there are go on.
	$fs->listen($kind, $_) for 'refuse', 'open';
	my $before = $fs->calls($kind);
	my ($outcome, $detail) = check_kek($server, "$kind-$certificate");
	is($outcome, 'unreachable', "$kind: a certificate, $certificate");
	like($detail, qr/certificate|SSL|TLS/i, 'the detail says so');
	is($fs->calls($kind), $before, 'and nothing was sent');
}
$fs->control('POST', '/certificate', { name => 'good' });

# --- clocks ------------------------------------------------------------------------------

for my $offset (90, -90)
{
	$fs->control('POST', '/clock', { offset => $offset });
	$server->reload;
	is(check_kek($server, $_), 'ok', "$_: a clock that is $offset s off") for @kinds;
}
$fs->control('POST', '/clock', { offset => 0 });

# A steady herd: 40 sessions seal and open under one key for several of its lives,
# while the KMS takes its time.
$fs->fault('kms', 'latency', operation => 'Decrypt', ms => 200);
$user->query(q{SELECT envelope_evict('kms')});
my $asked = sub { scalar grep { $_->{operation} eq 'Decrypt' && $_->{key} =~ m{/kms$} } $fs->log('kms') };
my $before = $asked->();
my $herd = run_load($server, q{SELECT 1 / (envelope_decrypt('kms', v) = 'of kms')::int, envelope_encrypt('kms', 'x') FROM kms_sealed}, 12, 40, 200);
cmp_ok(finish_load($herd), '>', 1000, 'forty sessions seal and open for three lives of a key');
# Each life ends between 0.7 and 1 of the TTL of 4 s.
cmp_ok($asked->() - $before, '<=', 12 / (0.7 * 4) + 2, 'by one call for each 0.7 of its TTL');
$fs->well;

# Shut down while a call hangs.
$fs->fault('kms', 'stall');
$user->query(q{SELECT envelope_evict('kms')});
my $last = Envelope::Session->new($server)->send(sprintf $open, 'kms');
$user->quit;
$start = now();
$server->stop;
cmp_ok(now() - $start, '<', 30, 'the server shuts down while a call hangs');
$last->quit;
done_testing();
