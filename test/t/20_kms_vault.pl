# packages: curl jq
# python: kms
#
# KEKs in Vault, by OpenBao's own server: from nothing by the words of the guide,
# withdrawn in each way that there is, sealed, and under policies that allow too
# little or too much.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $bao = start_bao(tls => 1);
my $folder = PostgreSQL::Test::Utils::tempdir;
my $host = "127.0.0.1:$bao->{port}";
bao($bao, 'DELETE', 'sys/mounts/transit');

# The guide, with this server's address and a folder of ours.
sub of_guide
{
	my ($language) = @_;
	return map { s/vault\.example\.com:8200/$host/gr =~ s{/etc/envelope}{$folder}gr } doc_blocks('kms-vault.md', $language);
}
my ($everyday, $move) = of_guide('hcl');
write_file("$folder/envelope.hcl", $everyday);
write_file("$folder/envelope-move.hcl", $move);
write_file("$folder/vault-ca.pem", slurp_file($bao->{ca}));
my @shell = grep { !/^grep/ } of_guide('sh');
is(scalar(@shell), 3, 'the guide has its commands');
run_doc($folder, { VAULT_ADDR => $bao->{url}, VAULT_TOKEN => 'root', VAULT_CACERT => $bao->{ca} },
	"vault() { '" . EnvelopeKms::bao_program() . "' \"\$\@\"; }", @shell);
like(slurp_file("$folder/secret_id"), qr/^[0-9a-f-]{36}$/m, 'they run');
my ($profiles) = of_guide('json');
chomp(my $role = slurp_file("$folder/role_id"));
$profiles =~ s/ROLE-ID/$role/;
my $profile = JSON::PP->new->decode($profiles)->{profiles}{vault};

write_file("$folder/root", 'root');
my $server = kms_server('vault',
	profiles => { vault => $profile, map { $_ => { hosts => [$host], ca_file => $bao->{ca}, token_file => "$folder/$_" } } 'careless', 'poor', 'root', 'bare' },
	conf => [ "envelope.cache_ttl = '4s'", "envelope.outage_grace = '5s'", 'max_connections = 120', 'envelope.log_kms_calls = on' ]);
$server->safe_psql('postgres', q{SELECT envelope_create_kek('local', 'local://platform')});
my $sql = (grep { /envelope_create_kek/ } of_guide('sql'))[0];
like($server->safe_psql('postgres', $sql =~ s/'platform'/'vault'/gr), qr/^t\|ok\|/m, 'the KEK is checked');

# Use
sub key { my ($name, %more) = @_; bao($bao, 'POST', "transit/keys/$name", { derived => \1, %more }); return "hcvault://$host/transit/keys/$name"; }
sub policy
{
	my ($name, @rules) = @_;
	return bao($bao, 'PUT', "sys/policies/acl/$name", { policy => join "\n", map { qq{path "$_->[0]" { capabilities = [$_->[1]] }} } @rules });
}

sub token
{
	my ($name, @rules) = @_;
	policy($name, @rules);
	# One that is bare has not even what Vault allows by default.
	write_file("$folder/$name", bao($bao, 'POST', 'auth/token/create', { policies => [$name], ttl => '1h', $name eq 'bare' ? (no_default_policy => \1) : () })->{auth}{client_token});
	return;
}
token('careless', [ 'transit/*', '"create", "update", "read", "delete"' ]);
token('poor', [ 'transit/datakey/plaintext/platform', '"update"' ]);
my @rules = map { [ "transit/$_/bare", '"update"' ] } 'datakey/plaintext', 'decrypt';
token('bare', @rules);
sub kek { my ($name, $uri, $profile) = @_; return $server->safe_psql('postgres', qq{SELECT envelope_create_kek('$name', '$uri', '{"profile": "$profile"}')}); }
kek($_, key($_), 'careless') for 'acme', 'globex';
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenant('t1'), envelope_create_tenant('acme', 'acme'), envelope_create_tenant('globex', 'globex');
	CREATE TABLE sealed AS SELECT t AS tenant, envelope_encrypt(t, 'of ' || t) AS v FROM unnest(array['t1', 'acme', 'globex']) t;
	SELECT envelope_evict_all();
});
my $open = q{SELECT envelope_decrypt(tenant, v) FROM sealed WHERE tenant = '%s'};
is(sqlstate($server, sprintf $open, $_), "of $_", "$_: opened by a key that came from Vault") for 't1', 'acme', 'globex';
like($server->safe_psql('postgres', q{SELECT convert_from(wrapped_dek, 'UTF8') FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data'}),
	qr/^vault:v1:/, 'stored as Vault wrapped it');

# Vault binds a key to its tenant and key id.
my ($id, $wrapped) = split /\|/, $server->safe_psql('postgres', q{SELECT key_id, convert_from(wrapped_dek, 'UTF8') FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data'});
my $b64 = sub { my $text = shift; require MIME::Base64; return MIME::Base64::encode_base64($text, ''); };
is((bao($bao, 'POST', 'transit/decrypt/platform', { ciphertext => $wrapped, context => $b64->("envelope/1/$id/t1") }))[0], 200, 'unwrapped for its tenant');
is((bao($bao, 'POST', 'transit/decrypt/platform', { ciphertext => $wrapped, context => $b64->("envelope/1/$id/t2") }))[0], 400, 'and for no other');

# A typo makes no key, even where the policy would let it.
kek('typo', "hcvault://$host/transit/keys/acmee", 'careless');
my ($outcome, $detail) = check_kek($server, 'typo');
is($outcome, 'denied', 'a KEK that is mistyped');
like($detail, qr/no key of this name/, 'the error says what is missing');
is(sqlstate($server, q{SELECT envelope_create_tenant('t3', 'typo')}), 'VE002', 'no tenant is made');
is((bao($bao, 'GET', 'transit/keys/acmee'))[0], 404, 'and no key in Vault');
kek('nomount', "hcvault://$host/elsewhere/keys/acme", 'careless');
like((check_kek($server, 'nomount'))[1], qr/mount|permission/, 'nor where the engine is not');

# A key in a namespace
bao($bao, 'POST', 'sys/namespaces/acme', {});
my $in_namespace = sub { bao({ %$bao, url => $bao->{url} }, $_[0], $_[1] =~ s{^}{acme/}r, $_[2]) };
is(($in_namespace->('POST', 'sys/mounts/transit', { type => 'transit' }))[0], 204, 'a namespace has an engine of its own');
$in_namespace->('POST', 'transit/keys/inside', { derived => \1 });
$server->safe_psql('postgres', qq{SELECT envelope_create_kek('namespace', 'hcvault://$host/transit/keys/inside', '{"profile": "root", "namespace": "acme"}'), envelope_create_kek('outside', 'hcvault://$host/transit/keys/inside', '{"profile": "root"}')});
is(check_kek($server, 'namespace'), 'ok', 'a KEK in a namespace');
is(check_kek($server, 'outside'), 'denied', 'is not there without it');
$server->safe_psql('postgres', q{SELECT envelope_drop_kek('namespace'), envelope_drop_kek('outside')});

# A profile is sent to no other host than it names, whatever the URI.
kek('stranger', 'hcvault://elsewhere.example:8200/transit/keys/platform', 'vault');
($outcome, $detail) = check_kek($server, 'stranger');
is($outcome, 'misconfigured', 'a KEK at another host');
like($detail, qr/host/, 'gets no credentials');

# Too little, and too much
kek('poor', "hcvault://$host/transit/keys/platform", 'poor');
($outcome, $detail) = check_kek($server, 'poor');
is($outcome, 'denied', 'a policy without decrypt');
like($detail, qr/permission/, 'check says so');
is($server->safe_psql('postgres', q{SELECT severity FROM envelope_doctor() WHERE subject = 'KEK poor' AND finding ~ 'denied since .*permission'}), 'error', 'and the doctor');

# A token that may not even look itself up: that is told, and it works all the same.
kek('bare', key('bare'), 'bare');
($outcome, $detail) = check_kek($server, 'bare');
is($outcome, 'ok', 'a token that may do nothing but unwrap and generate');
like($detail, qr/^the token may not look itself up/, 'of which check says what is not known');
is($server->safe_psql('postgres', q{SELECT severity FROM envelope_doctor() WHERE subject = 'KEK bare' AND finding LIKE 'the token may not look itself up%'}), 'warning', 'and the doctor');
$server->safe_psql('postgres', q{SELECT envelope_create_tenant('bare', 'bare'); INSERT INTO sealed VALUES ('bare', envelope_encrypt('bare', 'of bare')); SELECT envelope_evict('bare')});
is(sqlstate($server, sprintf $open, 'bare'), 'of bare', 'it opens');
policy('bare', $rules[0]);
ok(eventually(sub { sqlstate($server, sprintf $open, 'bare') eq 'VE002' }), 'taken out of its policy, decrypting is denied');
policy('bare', @rules);
ok(eventually(sub { sqlstate($server, sprintf $open, 'bare') eq 'of bare' }), 'given back, it opens again');
bao($bao, 'POST', 'auth/token/revoke', { token => slurp_file("$folder/bare") });
is(sqlstate($server, q{SELECT envelope_evict('bare'); } . sprintf $open, 'bare'), 'VE003', 'a token that was revoked is no denial');
token('bare', @rules);
ok(eventually(sub { sqlstate($server, sprintf $open, 'bare') eq 'of bare' }), 'and the next one opens');

# Withdrawn, in each way that there is; measured by a session that reads all the time.
my $user = Envelope::Session->new($server);
my $cached = q{SELECT count(*) FROM envelope.cache WHERE tenant_id = 'acme'};
my %withdrawn = (
	'deleted' => [ sub { bao($bao, 'POST', 'transit/keys/acme/config', { deletion_allowed => \1 }); bao($bao, 'DELETE', 'transit/keys/acme') }, undef ],
	'soft-deleted' => [ sub { bao($bao, 'DELETE', 'transit/keys/acme/soft-delete') }, sub { bao($bao, 'POST', 'transit/keys/acme/soft-delete-restore') } ],
	'below the minimum version' => [ sub { bao($bao, 'POST', 'transit/keys/acme/rotate', {}); bao($bao, 'POST', 'transit/keys/acme/config', { min_decryption_version => 2 }) },
		sub { bao($bao, 'POST', 'transit/keys/acme/config', { min_decryption_version => 1 }) } ]);
for my $way ('soft-deleted', 'below the minimum version', 'deleted')
{
	$server->safe_psql('postgres', q{SELECT envelope_warm(array['acme', 'globex', 't1'])});
	is($user->query(sprintf $open, 'acme'), 'of acme', "$way: before, it opens");
	$withdrawn{$way}[0]->();
	my $start = now();
	my ($end, %others);
	eventually(sub { $others{ $user->query(sprintf $open, 'globex') }++; $end = $user->query(sprintf $open, 'acme'); $end ne 'of acme' });
	my $seconds = now() - $start;
	is($end, 'VE002', "$way: denied");
	cmp_ok($seconds, '<', 4 + 5 + 10, "$way: within TTL and five seconds");
	ok(eventually(sub { $user->query($cached) eq '0' }), "$way: and no copy is in the cache");
	note sprintf '%s: no session reads after %.1f s, no copy after %.1f s, with a TTL of 4 s', $way, $seconds, now() - $start;
	is(join(' ', keys %others), 'of globex', "$way: other tenants go on");
	next unless $withdrawn{$way}[1];
	$withdrawn{$way}[1]->();
	ok(eventually(sub { $user->query(sprintf $open, 'acme') eq 'of acme' }), "$way: given back, it opens again by itself");
}

# Sealed, Vault is not there: what is warm goes on, what is cold fails, and all
# is well by itself afterwards.
my ($unseal) = slurp_file($bao->{log}) =~ /Unseal Key: (\S+)/;
$server->safe_psql('postgres', q{SELECT envelope_warm(array['globex', 't1'])});
bao($bao, 'PUT', 'sys/seal', {});
is(sqlstate($server, q{SELECT envelope_evict('t1'); } . sprintf $open, 't1'), 'VE003', 'sealed: a cold key is unreachable');
my $start = now();
my %ends;
while (now() - $start < 5) { $ends{ $user->query(sprintf $open, 'globex') }++ }
is(join(' ', keys %ends), 'of globex', 'sealed: a warm key lives on past its TTL');
ok(eventually(sub { $user->query(sprintf $open, 'globex') eq 'VE003' }), 'sealed: to the end of the grace');
cmp_ok(now() - $start, '<', 4 + 5 + 10, 'sealed: not longer');
is(sqlstate($server, q{SELECT envelope_encrypt('t1', 'x')}), 'VE003', 'sealed: nothing is sealed either');
like($server->safe_psql('postgres', q{SELECT outcome FROM envelope.status WHERE kek = 'globex'}), qr/unreachable/, 'sealed: the status says so');
bao($bao, 'PUT', 'sys/unseal', { key => $unseal });
ok(eventually(sub { sqlstate($server, sprintf $open, $_) eq "of $_" }), "unsealed: $_ opens") for 'globex', 't1';

# What the token may do and should not is told, by the check and by the doctor.
is_deeply([ check_kek($server, 'vault') ], [ 'ok', '' ], 'the policy of the guide allows nothing too much');
like((check_kek($server, 'globex'))[1], qr/more than it needs: delete the key, change the key's configuration.*make keys by encrypting/, 'a careless one does');
is($server->safe_psql('postgres', q{SELECT string_agg(DISTINCT subject, ' ') FROM envelope_doctor() WHERE finding LIKE '%more than it needs%'}), 'KEK globex', 'and the doctor says so');

# Each call is a line that can be joined with what Vault recorded.
my @calls = kms_log($server);
my ($call) = grep { $_->{operation} eq 'unwrap' && $_->{outcome} eq 'ok' && ($_->{tenant} // '') eq 't1' && $_->{role} } @calls;
like($call->{request_id}, qr/^[0-9a-f-]{36}$/, 'a call is logged with the id that Vault gave it');
is("$call->{role} $call->{database} $call->{kek}", getpwuid($<) . ' postgres vault', 'and who caused it');
is(join(' ', sort keys %$call), 'database for kek key_id latency_ms operation outcome request_id role tenant time uri', 'and what, when, for whom and how long');
like($call->{time}, qr/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/, 'by the clock');
my %recorded = map { ($_->{request}{id} => $_->{request}{path}) } map { JSON::PP::decode_json($_) } split /\n/, slurp_file($bao->{audit});
my @ok = grep { $_->{outcome} eq 'ok' && $_->{request_id} } @calls;
cmp_ok(scalar(@ok), '>', 10, 'every call that went well has such an id');
is(scalar(grep { ($recorded{ $_->{request_id} } // '') !~ qr{^(?:transit/(?:decrypt|datakey/plaintext)/|sys/capabilities-self$)} } @ok), 0, 'by which it is found in the log of the audit device');
ok((grep { $_->{outcome} eq 'denied' && $_->{kek} eq 'acme' } @calls), 'denials are logged');
# By the commands of the guide
write_file("$folder/postgresql.log", slurp_file($server->logfile));
write_file("$folder/vault-audit.log", slurp_file($bao->{audit}));
my %joined = map { ((split /\t/)[0] => $_) } split /\n/, run_doc($folder, {}, grep { /^grep/ } of_guide('sh'));
is(scalar(grep { !$joined{ $_->{request_id} } } @ok), 0, 'the commands of the guide join the two logs');
like($joined{ $call->{request_id} }, qr{\tvault|\tt1\tunwrap\tok\ttransit/decrypt/platform\t}, 'call by call');
my $log = slurp_file($server->logfile);
my @secrets = map { (split /\n/, slurp_file("$folder/$_"))[0] } 'secret_id', 'careless', 'poor';
ok(!(grep { index($log, $_) >= 0 } @secrets), 'no secret is');

$user->quit;
$server->stop;
done_testing();
