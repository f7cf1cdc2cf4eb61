# packages: curl
# python: kms
#
# Tenants move to a KEK of their own, from one kind of KMS to every other and back,
# under exactly the policies of the guides; what goes wrong on the way changes
# nothing.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my $bao = start_bao();
my $folder = PostgreSQL::Test::Utils::tempdir;
my $host = "127.0.0.1:$bao->{port}";
my $hosts = [ map { '127.0.0.1:' . $fs->port($_, 'https') } 'gcp', 'gcptoken' ];

# Tokens of the everyday policy and of both
my ($everyday, $move) = map { s{/platform"}{/acme"}gr } doc_blocks('kms-vault.md', 'hcl');
bao($bao, 'POST', 'transit/keys/acme', { derived => \1 });
bao($bao, 'PUT', 'sys/policies/acl/envelope', { policy => $everyday });
bao($bao, 'PUT', 'sys/policies/acl/envelope-move', { policy => $move });
bao($bao, 'PUT', 'sys/policies/acl/careless', { policy => 'path "transit/*" { capabilities = ["create", "update"] }' });
my %policies = (vault_everyday => ['envelope'], vault => [ 'envelope', 'envelope-move' ], careless => ['careless']);
my %profiles = map { $_ => { hosts => [$host], endpoint => $bao->{url}, token => bao($bao, 'POST', 'auth/token/create', { policies => $policies{$_}, ttl => '1h' })->{auth}{client_token} } } keys %policies;
$profiles{google} = { google_application_credentials => "$fs->{folder}/service_account.json", endpoint => $fs->url('gcp', 'https'), hosts => $hosts };

my $role = 'arn:aws:iam::999988887777:role/envelope';
$fs->set('sts', 'roles', { $role => { external_id => 'c2a1f0' } });
my $customer = $fs->kms_key(Account => '999988887777');
my %regional = map { $_ => $fs->kms_key(region => $_) } 'us-east-1', 'eu-west-1';
my $second = $fs->kms_key;
my %uri = (
	acme => [ "aws-kms://$customer", { role_arn => $role, external_id => 'c2a1f0' } ],
	us => ["aws-kms://$regional{'us-east-1'}"],
	us2 => ["aws-kms://$second"],
	eu => ["aws-kms://$regional{'eu-west-1'}"],
	google => [ 'gcp-kms://' . $fs->gcp_key('acme'), { profile => 'google' } ],
	vault => [ "hcvault://$host/transit/keys/acme", { profile => 'vault' } ],
	vault_everyday => [ "hcvault://$host/transit/keys/acme", { profile => 'vault_everyday' } ],
	typo => [ "hcvault://$host/transit/keys/acmee", { profile => 'careless' } ]);

my $server = kms_server('byok', ca => $fs->{ca}, profiles => \%profiles,
	env => { AWS_ENDPOINT_URL_KMS => $fs->url('kms', 'https'), AWS_ENDPOINT_URL_STS => $fs->url('sts', 'https'),
		AWS_ACCESS_KEY_ID => 'AKIDENVELOPETEST', AWS_SECRET_ACCESS_KEY => 'secret/of+the=test' },
	conf => [ 'max_connections = 60' ]);
for my $name (sort keys %uri)
{
	my $options = JSON::PP->new->encode($uri{$name}[1] // {});
	$server->safe_psql('postgres', "SELECT envelope_create_kek('$name', '$uri{$name}[0]', '$options')");
}
# A tenant with keys that are retired, too.
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array['t1', 'other']);
	CREATE TABLE sealed (tenant text, v bytea);
	INSERT INTO sealed SELECT t, envelope_encrypt(t, 'one of ' || t) FROM unnest(array['t1', 'other']) t;
	SELECT rotate_tenant_dek('t1', false);
	INSERT INTO sealed VALUES ('t1', envelope_encrypt('t1', 'two of t1')), ('t1', envelope_encrypt_deterministic('t1', 'three of t1'));
});
my $read = q{SELECT envelope_evict_all() IS NOT NULL; SELECT string_agg(envelope_decrypt(tenant, v), ', ' ORDER BY envelope_decrypt(tenant, v)) FROM sealed};
my $all = "t\none of other, one of t1, three of t1, two of t1";
my $keks = q{SELECT string_agg(DISTINCT kek, ' ') FROM envelope.tenant_keys WHERE tenant_id = 't1'};
is($server->safe_psql('postgres', $read), $all, 'all opens at first');
my $rows = $server->safe_psql('postgres', 'SELECT md5(string_agg(v::text, \'\' ORDER BY v)) FROM sealed');

# From each kind to each other, and back
my $from = 'platform';
for my $to ('acme', 'google', 'vault', 'eu', 'us', 'vault', 'google', 'acme', 'platform')
{
	is(sqlstate($server, "SELECT envelope_set_tenant_kek('t1', '$to')"), '3', "$from to $to: three keys are moved");
	is($server->safe_psql('postgres', $keks), $to, "$from to $to: none is left");
	is($server->safe_psql('postgres', $read), $all, "$from to $to: all opens");
	like(sqlstate($server, "SELECT envelope_create_tenant('new after $to', '$to')"), qr/^\d+$/, "$from to $to: $to makes keys as well");
	$from = $to;
}
is($server->safe_psql('postgres', 'SELECT md5(string_agg(v::text, \'\' ORDER BY v)) FROM sealed'), $rows, 'no row of data was written for it');
is($server->safe_psql('postgres', q{SELECT string_agg(DISTINCT kek, ' ') FROM envelope.tenant_keys WHERE tenant_id = 'other'}), 'platform', 'nor a key of another tenant');
my @used = grep { $_->{service} eq 'kms' && $_->{operation} eq 'Encrypt' } $fs->log('kms');
ok((grep { $_->{key} eq $regional{'eu-west-1'} } @used), 'a KEK of another region is asked there');

# Inside one KMS the key does not come out of it; and this takes the policy for moves.
my ($aws_everyday, $aws_move) = map { JSON::PP::decode_json($_)->{Statement} } doc_blocks('kms-aws.md', 'json');
$_->{Resource} = '*' for @$aws_everyday, @$aws_move;
my $ours = 'arn:aws:iam::111122223333:user/envelope';
$server->safe_psql('postgres', q{SELECT envelope_set_tenant_kek('t1', 'us')});
$fs->control('POST', '/policy', { arn => $ours, statements => $aws_everyday });
is(sqlstate($server, q{SELECT envelope_set_tenant_kek('t1', 'us2')}), 'VE002', 'with the everyday policy alone a move is denied');
is($server->safe_psql('postgres', $keks), 'us', 'and nothing is moved');
$fs->control('POST', '/policy', { arn => $ours, statements => [ @$aws_everyday, @$aws_move ] });
$fs->control('POST', '/reset', {});
is(sqlstate($server, q{SELECT envelope_set_tenant_kek('t1', 'us2')}), '3', 'with that for moves it is done');
is($fs->calls('kms', 'ReEncrypt') . ' ' . $fs->calls('kms', 'Encrypt'), '3 0', 'inside the KMS');
cmp_ok($fs->calls('kms', 'Decrypt'), '>=', 3, 'and each new wrapping is unwrapped before it counts');
$fs->control('POST', '/policy', { arn => $ours, statements => $aws_everyday });
is($server->safe_psql('postgres', $read), $all, 'and with the everyday policy again all opens');
$fs->control('POST', '/policy', { arn => $ours });

is(sqlstate($server, q{SELECT envelope_set_tenant_kek('t1', 'vault_everyday')}), 'VE002', 'Vault: with the everyday policy alone a move is denied');
is($server->safe_psql('postgres', $keks), 'us2', 'Vault: and nothing is moved');
is(sqlstate($server, q{SELECT envelope_set_tenant_kek('t1', 'vault')}), '3', 'Vault: with that for moves it is done');

# A new version of Vault's key: counted, re-wrapped by Vault itself, and the old one can go.
bao($bao, 'POST', 'transit/keys/acme/rotate', {});
my $versions = q{SELECT string_agg(kek_version || ':' || n, ' ' ORDER BY kek_version) FROM (SELECT kek_version, count(*) n FROM envelope.tenant_keys WHERE tenant_id = 't1' GROUP BY 1) c};
is($server->safe_psql('postgres', $versions), '1:3', 'three keys are of version 1');
bao($bao, 'POST', 'transit/keys/acme/config', { min_decryption_version => 2 });
my ($rc, $out, $err) = $server->psql('postgres', $read);
like($err, qr/tenant "t1".*KEK "vault"/s, 'raised too early, the minimum version denies, naming tenant and KEK');
bao($bao, 'POST', 'transit/keys/acme/config', { min_decryption_version => 1 });
ok(eventually(sub { my ($rc, $out) = $server->psql('postgres', $read); ($out // '') eq $all }), 'lowered, that is mended');
$server->safe_psql('postgres', q{CALL envelope_rotate_kek('vault')});
is($server->safe_psql('postgres', $versions), '2:3', 're-wrapped, they are of version 2');
bao($bao, 'POST', 'transit/keys/acme/config', { min_decryption_version => 2 });
is($server->safe_psql('postgres', $read), $all, 'and all opens with the minimum raised');

# What goes wrong on the way changes nothing.
$server->safe_psql('postgres', q{SELECT envelope_set_tenant_kek('t1', 'platform')});
my $before = $server->safe_psql('postgres', q{SELECT md5(string_agg(wrapped_dek::text, '' ORDER BY key_id)) FROM envelope.tenant_keys});
is(sqlstate($server, q{SELECT envelope_set_tenant_kek('t1', 'typo')}), 'VE002', 'a target that is mistyped');
is((bao($bao, 'GET', 'transit/keys/acmee'))[0], 404, 'no key is made for it');
for my $fault ([ 'wrong_dek', 'Decrypt' ], [ 'short_dek', 'Decrypt' ], [ 'unavailable', 'Encrypt' ], [ 'html403', 'Encrypt' ], [ 'missing', 'Encrypt' ], [ 'stall', 'Decrypt' ])
{
	$fs->fault('kms', $fault->[0], operation => $fault->[1]);
	like(sqlstate($server, q{SET envelope.kms_timeout = '2s'; SELECT envelope_set_tenant_kek('t1', 'us')}), qr/^VE00[34]$/, "$fault->[0] at $fault->[1] fails the move");
	$fs->well;
}
is(sqlstate($server, q{BEGIN; SELECT envelope_set_tenant_kek('t1', 'google'); ROLLBACK}) =~ /3/, 1, 'a move that is rolled back');
is($server->safe_psql('postgres', q{SELECT md5(string_agg(wrapped_dek::text, '' ORDER BY key_id)) FROM envelope.tenant_keys}), $before, 'none of this has changed a key');
is($server->safe_psql('postgres', $keks), 'platform', 'nor its KEK');
$server->restart;
is($server->safe_psql('postgres', $read), $all, 'after a new start all opens');

$server->stop;
done_testing();
