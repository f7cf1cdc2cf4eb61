# A key that its KMS withdraws ends within seconds, one denial alone ends
# nothing, and one KMS in trouble is no trouble for the others.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('withdrawal', "envelope.cache_ttl = '4s'", 'max_connections = 120');
make_kek($server->{keks}, 'acme');
$server->safe_psql('postgres', q{
	SELECT envelope_create_kek('acme', 'local://acme');
	SELECT envelope_create_tenant('t1'), envelope_create_tenant('acme', 'acme');
	CREATE TABLE sealed AS SELECT envelope_encrypt('t1', 'x') AS v, envelope_encrypt('acme', 'y') AS a;
});
my $open = q{SELECT envelope_decrypt('acme', a) FROM sealed};
my $seal = q{SELECT envelope_encrypt('acme', 'x') IS NOT NULL};
my $state = q{SELECT string_agg(DISTINCT state, ' ') FROM envelope.cache WHERE tenant_id = 'acme' AND purpose = 'data'};

# Withdrawn while in use
$server->safe_psql('postgres', q{SELECT envelope_warm(array['t1', 'acme'])});
my $user = Envelope::Session->new($server);
is($user->query($open), 'y', 'opens');
set_faults($server, 'acme:denied');
my $denied_at = now();
my ($suspect_at, $sealed_while_suspect, $end);
eventually(sub {
		my $seen = $user->query($state);
		$suspect_at ||= now() if $seen =~ /suspect/;
		$end = $user->query($open);
		$end ne 'y';
	});
is($end, 'VE002', 'a key that is withdrawn is denied');
# refresh at 80 % of 4 s, then 5 s at most
cmp_ok(now() - $denied_at, '<', 4 + 5 + 2, 'within its TTL and five seconds');
ok($suspect_at, 'it was suspect before');
is($user->query($state), '', 'it is gone from memory');
is($user->query($seal), 'VE002', 'and seals no more');
is($user->query(q{SELECT envelope_decrypt('t1', v) FROM sealed}), 'x', 'a tenant of another KEK is not concerned');

# A report over all tenants goes on without that one.
like($user->query(q{SET envelope.unreadable = 'null'; SELECT envelope_decrypt('t1', v), envelope_decrypt('acme', a) IS NULL FROM sealed}),
	qr/^x\|t$/, 'what cannot be read is NULL if the session says so');
$user->query('RESET envelope.unreadable');

# Whoever has no key gets the first answer, at once.
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
my $start = now();
is(sqlstate($server, $open), 'VE002', 'without a key the first denial counts');
cmp_ok(now() - $start, '<', 2, 'at once');

# Given back
set_faults($server, '');
ok(eventually(sub { $user->query($open) eq 'y' }), 'given back, it opens again without help');

# Without help means without a reload too: a KEK that is taken away so long that
# denials are remembered, and given back, serves again.
my $file = "$server->{keks}/acme.1.key";
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
rename $file, "$file.away" or die;
$start = now();
my $denied = 0;
eventually(sub { $denied++ if $user->query($open) eq 'VE002'; now() - $start > 3 });
cmp_ok($denied, '>', 3, 'taken away, it is denied again and again');
my $called = calls($server, 'unwrap');
$denied = 0;
for (1 .. 200) { $denied++ if $user->query($open) eq 'VE002' }
is($denied, 200, 'as often as somebody asks');
cmp_ok(calls($server, 'unwrap') - $called, '<=', 2, 'but the KMS is not asked each time');
rename "$file.away", $file or die;
$start = now();
ok(eventually(sub { $user->query($open) eq 'y' }), 'put back, it opens again without help');
cmp_ok(now() - $start, '<', 45, 'within the time that a denial is remembered');

# One denial, and then none: the key lives, and nobody noticed.
$server->safe_psql('postgres', q{SELECT envelope_evict_all(); SELECT envelope_warm(array['acme'])});
my $denials = q{SELECT denied FROM envelope.kms_stats WHERE kek = 'acme' AND operation = 'unwrap'};
my $before = $user->query($denials);
set_faults($server, 'acme:denied');
my %ends;
eventually(sub { $ends{ $user->query($open) }++; $user->query($state) =~ /suspect/ });
set_faults($server, '');
my $sealer = Envelope::Session->new($server);
is($sealer->query($seal), 't', 'to seal one waits for the second answer');
eventually(sub { $ends{ $user->query($open) }++; $user->query($state) =~ /fresh/ });
is(join(' ', keys %ends), 'y', 'opening goes on all the while');
is($user->query($denials) - $before, 1, 'with one denial');
$sealer->quit;

# A transaction that holds the key expanded loses it as well.
$server->safe_psql('postgres', q{SELECT envelope_evict_all(); SELECT envelope_warm(array['acme'])});
my $long = Envelope::Session->new($server);
set_faults($server, 'acme:denied');
$start = now();
$long->send('SELECT count(envelope_decrypt(\'acme\', a) || pg_sleep(0.01)) FROM sealed, generate_series(1, 5000)');
is($long->wait, 'VE002', 'in the midst of a statement too');
cmp_ok(now() - $start, '<', 4 + 5 + 3, 'in time');
$long->quit;
set_faults($server, '');

# One KMS that hangs while another answers: a hundred sessions wait for the one,
# and none for the other.
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array(SELECT 'stalled' || g FROM generate_series(1, 80) g), 'acme');
	CREATE TABLE many AS SELECT g, envelope_encrypt('stalled' || g, 'x') AS v FROM generate_series(1, 80) g;
	SELECT envelope_evict_all();
});
set_faults($server, 'acme:stalled');
my @waiting = map { Envelope::Session->new($server)->send("SELECT envelope_decrypt('stalled$_', v) FROM many WHERE g = $_") } 1 .. 80;
$start = now();
for (1 .. 20)
{
	$user->query(q{SELECT envelope_evict('t1')});
	$end = $user->query(q{SELECT envelope_decrypt('t1', v) FROM sealed});
	last if $end ne 'x';
}
is($end, 'x', 'a KMS that hangs holds up nobody else');
cmp_ok(now() - $start, '<', 4, 'for no time');
%ends = ();
$ends{ $_->wait }++ for @waiting;
is(join(' ', keys %ends), 'VE003', 'who waits for it gives up');
set_faults($server, '');
ok(eventually(sub { sqlstate($server, 'SELECT count(envelope_decrypt(\'stalled\' || g, v)) FROM many') eq '80' }), 'until it answers');

# An alert can match these lines.
my $log = slurp_file($server->logfile);
like($log, qr/LOG:  envelope: KEK "acme" of database \d+ is denied/, 'the log says when a KEK is denied');
like($log, qr/LOG:  envelope: KEK "acme" of database \d+ is unreachable/, 'and when it is unreachable');
like($log, qr/LOG:  envelope: KEK "acme" of database \d+ is ok again/, 'and when it is well again');

$_->quit for $user, @waiting;
$server->stop;
done_testing();
