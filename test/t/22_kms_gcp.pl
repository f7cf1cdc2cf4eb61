# KEKs in Google Cloud KMS, by the stand-in that Google's own client takes for
# Cloud KMS (test/suites/kms.sh): key versions and their states, under exactly the
# role of the guide, with sums over everything, and a customer's own key.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my $hosts = [ map { '127.0.0.1:' . $fs->port($_, 'https') } 'gcp', 'gcptoken' ];
my $server = kms_server('gcp', ca => $fs->{ca},
	profiles => { google => { google_application_credentials => "$fs->{folder}/service_account.json", endpoint => $fs->url('gcp', 'https'), hosts => $hosts } },
	conf => [ "envelope.cache_ttl = '4s'", "envelope.outage_grace = '5s'", 'envelope.log_kms_calls = on' ]);
my $user = Envelope::Session->new($server);
my $open = q{SELECT envelope_decrypt(tenant, v) FROM sealed WHERE tenant = '%s'};
$user->query('CREATE TABLE sealed (tenant text, v bytea)');

sub kek { my ($name, $key) = @_; return $user->query(qq{SELECT envelope_create_kek('$name', 'gcp-kms://$key', '{"profile": "google"}')}); }
sub tenant { my ($name) = @_; return $user->query("SELECT envelope_create_tenant('$name', '$name'); INSERT INTO sealed VALUES ('$name', envelope_encrypt('$name', 'of $name'))"); }

sub cold
{
	my ($name) = @_;
	$user->query("SELECT envelope_evict('$name')");
	return $user->query(sprintf $open, $name);
}

my %key = map { $_ => $fs->gcp_key($_) } 'main', 'acme';
kek($_, $key{$_}) for sort keys %key;
my @checked = check_kek($server, 'main');
is($checked[0], 'ok', 'the KEK is checked');
like($checked[1], qr/more than it needs: cloudkms.cryptoKeyVersions.destroy, /, 'and that the account may do everything is told');
tenant($_) for sort keys %key;
is(cold($_), "of $_", "$_: wrapped and unwrapped") for sort keys %key;
is($server->safe_psql('postgres', q{SELECT DISTINCT kek_version FROM envelope.tenant_keys WHERE tenant_id = 'main'}), '1', 'the version that wrapped is stored');

# Bound, and summed
my ($wrap) = grep { $_->{operation} eq 'encrypt' } $fs->log('gcp');
like(decode_base64($wrap->{aad}), qr/envelope/, 'tenant and key id go along as additional data');
my ($one, $two) = map { decode_base64($_->{aad}) } (grep { $_->{operation} eq 'encrypt' } $fs->log('gcp'))[-1, -2];
isnt($one, $two, 'another for each key');
for my $fault ('wrong_crc', 'unverified')
{
	my $operation = $fault eq 'unverified' ? 'encrypt' : 'decrypt';
	$fs->fault('gcp', $fault, operation => $operation, count => 1);
	is(check_kek($server, 'main'), 'ok', "$fault once: asked again");
	$fs->fault('gcp', $fault, operation => $operation);
	isnt(check_kek($server, 'main'), 'ok', "$fault always: not taken");
	$fs->well;
}

# Versions: a new one wraps, the old one unwraps.
$fs->control('POST', "/admin/gcp/v1/$key{main}/cryptoKeyVersions", {});
$fs->control('POST', "/admin/gcp/v1/$key{main}:updatePrimaryVersion", { cryptoKeyVersionId => '2' });
$user->query(q{SELECT envelope_create_tenant('newer', 'main')});
like($server->safe_psql('postgres', q{SELECT keys_by_version FROM envelope.status WHERE kek = 'main'}), qr/"1": 2.*"2": 2/, 'keys are counted by version');
is(cold('main'), 'of main', 'what the old one wrapped is unwrapped');
is($server->safe_psql('postgres', q{CALL envelope_rotate_kek('main'); SELECT keys_by_version FROM envelope.status WHERE kek = 'main'}), '{"2": 4}', 're-wrapped, all are of the new one');
$fs->gcp_state($key{main}, 1, 'DISABLED');
is(cold('main'), 'of main', 'and the old one can go');

# Under exactly the role of the guide
my ($permissions) = doc_blocks('kms-gcp.md', 'text');
my $member = 'serviceAccount:envelope@test.iam.gserviceaccount.com';
$fs->control('POST', '/policy', { member => $member, permissions => [ split ' ', $permissions ] });
is_deeply([ check_kek($server, 'main') ], [ 'ok', '' ], 'the role of the guide is enough, and not too much');
is(cold('main'), 'of main', 'to open');
for my $missing (split ' ', $permissions)
{
	next unless $missing =~ /useTo/;
	$fs->control('POST', '/policy', { member => $member, permissions => [ grep { $_ ne $missing } split ' ', $permissions ] });
	my ($outcome, $detail) = check_kek($server, 'main');
	is($outcome, 'denied', "without $missing");
	like($detail, qr/permission/i, 'check says so');
}
$fs->control('POST', '/policy', { member => $member });

# Answers, each as the outcome that it means
my %means = (FAILED_PRECONDITION => 'denied', PERMISSION_DENIED => 'denied', NOT_FOUND => 'denied', RESOURCE_EXHAUSTED => 'unreachable',
	INTERNAL => 'unreachable', UNAVAILABLE => 'unreachable', DEADLINE_EXCEEDED => 'unreachable', INVALID_ARGUMENT => 'corrupt');
for my $code (sort keys %means)
{
	$fs->fault('gcp', 'error', operation => 'decrypt', code => $code, message => 'secret-in-message');
	my ($outcome, $detail) = check_kek($server, 'main');
	is($outcome, $means{$code}, "$code is $means{$code}");
	unlike($detail, qr/secret-in-message/, 'and the reply is not repeated');
	$fs->well;
}
# A token that has died is fetched anew, and nobody notices.
my $tokens = $fs->calls('gcptoken');
$fs->control('POST', '/revoke', {});
is(check_kek($server, 'main'), 'ok', 'a token that has died is replaced');
cmp_ok($fs->calls('gcptoken') - $tokens, '<=', 2, 'by one that is asked for once');

# Withdrawn by the customer; nothing is done here.
is(cold('acme'), 'of acme', 'before, it opens');
$fs->gcp_state($key{acme}, 1, 'DISABLED');
my $start = now();
my ($end, %others);
eventually(sub { $others{ $user->query(sprintf $open, 'main') }++; $end = $user->query(sprintf $open, 'acme'); $end ne 'of acme' });
my $seconds = now() - $start;
is($end, 'VE002', 'disabled: denied');
cmp_ok($seconds, '<', 4 + 5 + 10, 'within TTL and five seconds');
ok(eventually(sub { $user->query(q{SELECT count(*) FROM envelope.cache WHERE tenant_id = 'acme'}) eq '0' }), 'and no copy is in the cache');
note sprintf 'no session reads after %.1f s, no copy after %.1f s, with a TTL of 4 s', $seconds, now() - $start;
is(join(' ', keys %others), 'of main', 'other tenants go on');
$fs->gcp_state($key{acme}, 1, 'ENABLED');
ok(eventually(sub { $user->query(sprintf $open, 'acme') eq 'of acme' }), 'enabled: opens again by itself');
$fs->control('POST', "/admin/gcp/v1/$key{acme}/cryptoKeyVersions/1:destroy", {});
is(cold('acme'), 'VE002', 'scheduled for destruction: denied');

# The log of calls
my ($call) = grep { $_->{outcome} eq 'ok' && $_->{operation} eq 'unwrap' && ($_->{tenant} // '') eq 'main' } kms_log($server);
is("$call->{kek} $call->{database}", 'main postgres', 'calls are logged');
my $log = slurp_file($server->logfile);
ok(!(grep { index($log, $_) >= 0 } 'ya29.', 'PRIVATE KEY', 'secret-in-message'), 'without a secret');

# Secrets as options, and in a URI
for my $name ('private_key', 'access_token', 'Refresh_Token', 'client_secret', 'google_application_credentials')
{
	my ($rc, $out, $err) = $server->psql('postgres', qq{SELECT envelope_create_kek('bad', 'gcp-kms://$key{main}', '{"$name": "hunter2"}')});
	like($err, qr/"$name"/, "option $name is refused by name");
	unlike($err, qr/hunter2/, 'and the value not shown');
}
my ($rc, $out, $err) = $server->psql('postgres', "SELECT envelope_create_kek('bad', 'gcp-kms://$key{main}?token=hunter2')");
like($err, qr/ERROR/, 'a URI with more in it is refused');
unlike($err, qr/ERROR.*hunter2|DETAIL.*hunter2|HINT.*hunter2/, 'and not shown');

$user->quit;
$server->stop;
done_testing();
