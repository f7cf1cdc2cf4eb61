# packages: curl
# python: kms
#
# Short-lived credentials of every kind live five lives, under load that calls the
# KMS all the time, and no statement fails: refreshed ahead, read anew from files
# that are swapped, replaced when they die early or are revoked by hand.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $life = 0 + ($ENV{ENVELOPE_CREDENTIAL_SECONDS} // 4);
my $lives = 5;
my $folder = PostgreSQL::Test::Utils::tempdir;
my $fs = fault_server();
my $bao = start_bao();
my $encode = sub { JSON::PP->new->encode($_[0]) };
$fs->settings(credential_seconds => $life, container_token => 'let me in', epoch_expiry => \1);

# --- keys, and who may use them ---------------------------------------------------

my $key = $fs->kms_key;
my $customer = $fs->kms_key(Account => '999988887777');
my $gcp = $fs->gcp_key('platform');
$fs->control('POST', '/policy', { member => $_, permissions => [ map { "cloudkms.cryptoKeyVersions.useTo$_" } 'Encrypt', 'Decrypt' ] })
  for 'serviceAccount:envelope@test.iam.gserviceaccount.com', 'serviceAccount:vm@test.example', 'principal:federated', 'user:operator@example.com';
my $root = { 'X-Vault-Token' => 'root' };
http_json('POST', $fs->url('vault') . '/v1/transit/keys/platform', { derived => \1 }, $root);
my $role = 'arn:aws:iam::999988887777:role/envelope';
my $web_role = 'arn:aws:iam::111122223333:role/web';
my $file_role = 'arn:aws:iam::111122223333:role/file';

# Files that are swapped as Kubernetes does it: a link to a folder that changes.
sub swap
{
	my ($name, $text) = @_;
	my $base = "$folder/$name";
	my $version = sprintf '%s/..%.6f', $base, now();
	mkdir $base;
	mkdir $version;
	write_file("$version/token", $text);
	unlink "$base/..new";
	symlink $version, "$base/..new" or die $!;
	rename "$base/..new", "$base/..data" or die $!;
	symlink '..data/token', "$base/token" unless -l "$base/token";
	return "$base/token";
}

my $turn = 0;

# A new token in each of them; of the others' only this one and the one before are
# accepted from now on.
sub turn_tokens
{
	my $last = $turn++;
	my ($web_tokens, $subjects) = ([], []);
	for ($last, $turn)
	{
		push @$web_tokens, "header.claims.signature$_";
		push @$subjects, "subject-token-$_";
	}
	$fs->set('sts', 'roles', { $role => { external_id => 'c2a1f0' }, $web_role => { web_identity_token => $web_tokens }, $file_role => { external_id => 'in a file' } });
	$fs->set('gcptoken', 'subject_tokens', $subjects);
	my $web = swap('web', $web_tokens->[1]);
	my $subject = swap('subject', $subjects->[1]);
	my $made = http_json('POST', $fs->url('vault') . '/v1/auth/token/create', { ttl => "${life}s", policies => ['envelope'] }, $root);
	my $vault = swap('vault', $made->{auth}{client_token});
	return ($web, $subject, $vault);
}

my %policy = (policy => join "\n", map { qq{path "transit/$_/platform" { capabilities = ["update"] }} } 'decrypt', 'datakey/plaintext');
http_json('PUT', $fs->url('vault') . '/v1/sys/policies/acl/envelope', \%policy, $root);
my ($web_file, $subject_file, $token_file) = turn_tokens();

# Vault: AppRole with OpenBao, whose tokens cannot live longer than two lives;
# Kubernetes and certificates with the stand-in.
bao($bao, 'POST', 'transit/keys/platform', { derived => \1 });
bao($bao, 'PUT', 'sys/policies/acl/envelope', \%policy);
bao($bao, 'POST', 'sys/auth/approle', { type => 'approle' });
bao($bao, 'POST', 'auth/approle/role/envelope', { token_policies => ['envelope'], token_ttl => "${life}s", token_max_ttl => 2 * $life . 's' });
my $role_id = bao($bao, 'GET', 'auth/approle/role/envelope/role-id')->{data}{role_id};
my $secret_file = write_file("$folder/secret_id", bao($bao, 'POST', 'auth/approle/role/envelope/secret-id', {})->{data}{secret_id});
my $jwt_file = write_file("$folder/jwt", 'pod.token.signature');
my %given = (ttl => $life, max_ttl => 2 * $life, policies => ['envelope']);
$fs->set('vault', 'jwts', { envelope => { jwt => 'pod.token.signature', %given } });
$fs->set('vault', 'certificates', { envelope => { common_name => 'envelope-client', %given } });

# A token of an operator's own, in ~/.vault-token
my $ambient = http_json('POST', $fs->url('vault') . '/v1/auth/token/create', { ttl => '1h', policies => ['envelope'] }, $root)->{auth}{client_token};

# Google
my $account = JSON::PP::decode_json(slurp_file("$fs->{folder}/service_account.json"));
my $tokens = $fs->url('gcptoken', 'https');
my %external = (type => 'external_account', audience => '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q',
	subject_token_type => 'urn:ietf:params:oauth:token-type:jwt', token_url => "$tokens/v1/token");
my $external_file = write_file("$folder/external_file.json", $encode->({ %external, credential_source => { file => $subject_file } }));
my $external_url = write_file("$folder/external_url.json", $encode->({ %external,
		service_account_impersonation_url => "$tokens/v1/projects/-/serviceAccounts/envelope\@test.iam.gserviceaccount.com:generateAccessToken",
		credential_source => { url => "$tokens/subject.json", headers => { 'X-Subject-Header' => 'yes' }, format => { type => 'json', subject_token_field_name => 'value' } } }));
my $user_file = write_file("$folder/user.json", $encode->({ type => 'authorized_user', client_id => 'envelope.apps.example', client_secret => 'client/secret',
			refresh_token => '1//refresh', token_uri => "$tokens/token" }));

# --- servers: each with a chain of its own -----------------------------------------

my %google = (endpoint => $fs->url('gcp', 'https'), hosts => [ map { '127.0.0.1:' . $fs->port($_, 'https') } 'gcp', 'gcptoken' ]);
my $vault_host = '127.0.0.1:' . $fs->port('vault', 'https');
my %vault = (hosts => [$vault_host]);
my %aws = (AWS_ENDPOINT_URL_KMS => $fs->url('kms', 'https'), AWS_ENDPOINT_URL_STS => $fs->url('sts', 'https'));
my %kek = (aws => ["aws-kms://$key"], role => [ "aws-kms://$customer", { role_arn => $role, external_id => 'c2a1f0' } ],
	(map { $_ => [ "gcp-kms://$gcp", { profile => $_ } ] } 'google', 'user', 'url'),
	(map { $_ => [ "hcvault://$vault_host/transit/keys/platform", { profile => $_ } ] } 'kubernetes', 'cert', 'token'),
	ambient => ["hcvault://$vault_host/transit/keys/platform"],
	approle => [ "hcvault://127.0.0.1:$bao->{port}/transit/keys/platform", { profile => 'approle' } ]);
my %chains = (
	instance => { keks => [ 'aws', 'role', 'google', 'approle' ],
		env => { AWS_EC2_METADATA_SERVICE_ENDPOINT => $fs->url('imds'), GCE_METADATA_HOST => '127.0.0.1:' . $fs->port('gcpmeta') },
		profiles => { approle => { hosts => ["127.0.0.1:$bao->{port}"], endpoint => $bao->{url}, role_id => $role_id, secret_id_file => $secret_file } } },
	container => { keks => [ 'aws', 'google', 'kubernetes' ],
		env => { AWS_CONTAINER_CREDENTIALS_FULL_URI => $fs->url('container') . '/v2/credentials/envelope',
			AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE => write_file("$folder/authorization", 'let me in'),
			GOOGLE_APPLICATION_CREDENTIALS => "$fs->{folder}/service_account.json" },
		profiles => { kubernetes => { %vault, kubernetes_role => 'envelope', jwt_file => $jwt_file } } },
	web => { keks => [ 'aws', 'google', 'cert', 'ambient' ],
		env => { AWS_WEB_IDENTITY_TOKEN_FILE => $web_file, AWS_ROLE_ARN => $web_role, GOOGLE_APPLICATION_CREDENTIALS => $external_file,
			VAULT_ADDR => $fs->url('vault', 'https'), VAULT_CACERT => $fs->{ca} },
		files => { '.vault-token' => $ambient },
		profiles => { cert => { %vault, client_cert => "$fs->{folder}/client.pem", client_key => "$fs->{folder}/client.pem", cert_role => 'envelope' } } },
	files => { keks => [ 'aws', 'google', 'user', 'url', 'token' ],
		files => { '.config/gcloud/application_default_credentials.json' => slurp_file($user_file),
			 '.aws/config' => "[default]\nregion = us-east-1\n\n[profile envelope]\nrole_arn = $file_role\nsource_profile = base\nexternal_id = in a file\n",
			'.aws/credentials' => "[base]\naws_access_key_id = AKIDENVELOPETEST\naws_secret_access_key = secret/of+the=test\n" },
		env => { AWS_PROFILE => 'envelope' },
		profiles => { user => { %google, google_application_credentials => $user_file }, url => { %google, google_application_credentials => $external_url },
			token => { %vault, token_file => $token_file } } });
for my $name (sort keys %chains)
{
	my $chain = $chains{$name};
	$chain->{profiles}{google} = {%google};
	my $server = $chain->{server} = kms_server($name, ca => $fs->{ca}, files => $chain->{files}, profiles => $chain->{profiles}, env => { %aws, %{ $chain->{env} } });
	my @load;
	for my $kek (@{ $chain->{keks} })
	{
		my ($uri, $options) = @{ $kek{$kek} };
		my $json = $encode->($options // {});
		turn_tokens();
		$server->safe_psql('postgres', "SELECT envelope_create_kek('$kek', '$uri', '$json')");
		ok(eventually(sub { join('|', check_kek($server, $kek)) eq 'ok|' }), "$name: $kek");
		$server->safe_psql('postgres', "SELECT envelope_create_tenant('$kek', '$kek'); CREATE TABLE ${kek}_sealed AS SELECT envelope_encrypt('$kek', 'x') AS v");
		push @load, "SELECT envelope_evict('$kek');\nSELECT 1 / (envelope_decrypt('$kek', v) = 'x')::int FROM ${kek}_sealed;";
	}
	$chain->{sql} = join "\n", @load;
}

# --- five lives, at once -------------------------------------------------------------

turn_tokens();
$fs->control('POST', '/reset', {});
my $start = now();
$_->{load} = run_load($_->{server}, $_->{sql} =~ s/;\z//r, $lives * $life + 6, 2, 8) for values %chains;
while (now() - $start < $lives * $life + 1)
{
	sleep $life / 4;
	turn_tokens();
}
my @refused = grep { $_->{status} != 200 && $_->{service} =~ /^(?:kms|gcp|vault)$/ } map { $fs->log($_) } 'kms', 'gcp', 'vault';
is(scalar(@refused), 0, 'no KMS was ever shown a credential that had died') or diag explain \@refused[0 .. 2];
# A chain asks the instance for the role's name, then for its keys, for two KEKs.
my %asked = (instance => $fs->calls('imds', 'credentials') / 4, container => $fs->calls('container'), 'web identity' => $fs->calls('sts', 'AssumeRoleWithWebIdentity'),
	'assumed roles' => $fs->calls('sts', 'AssumeRole') / 2, 'metadata server' => $fs->calls('gcpmeta'), 'service account and user' => $fs->calls('gcptoken', 'token') / 3,
	'workload identity' => $fs->calls('gcptoken', 'exchange') / 2, impersonation => $fs->calls('gcptoken', 'impersonate'),
	'logins and renewals' => ($fs->calls('vault', 'login') + $fs->calls('vault', 'renew-self')) / 2);
for my $kind (sort keys %asked)
{
	cmp_ok($asked{$kind}, '>=', $lives - 1, "$kind: lived $lives lives ($asked{$kind} were fetched)");
	cmp_ok($asked{$kind}, '<=', 4 * $lives + ($kind =~ /identity|logins/ ? $turn : 0), "$kind: and were not fetched all the time");
}
cmp_ok($fs->calls('vault', 'login'), '>=', 2, 'past the longest life of a token, it was logged in again');

# All that were given die at once, by hand; nobody notices.
my $evictions = $chains{instance}{server}->safe_psql('postgres', 'SELECT evictions FROM envelope.cache_stats');
$fs->control('POST', '/revoke', {});
my $accessors = bao($bao, 'LIST', 'auth/token/accessors');
for my $accessor (@{ $accessors->{data}{keys} })
{
	my $token = bao($bao, 'POST', 'auth/token/lookup-accessor', { accessor => $accessor });
	bao($bao, 'POST', 'auth/token/revoke-accessor', { accessor => $accessor }) if ($token->{data}{path} // '') =~ /approle/;
}
for my $name (sort keys %chains)
{
	cmp_ok(finish_load($chains{$name}{load}), '>', 10 * $lives, "$name: no statement has failed") or diag ${ $chains{$name}{load}{out} };
}
is($chains{instance}{server}->safe_psql('postgres', 'SELECT evictions FROM envelope.cache_stats'), $evictions, 'and nothing was evicted for it');

# When the next one dies the status tells.
is($chains{files}{server}->safe_psql('postgres', q{SELECT count(*) FROM envelope_doctor() WHERE finding ~ 'credential'}), 0, 'doctor has nothing to say of them');
my $log = join '', map { slurp_file($_->{server}->logfile) } values %chains;
ok(!(grep { index($log, $_) >= 0 } 'ya29.', 'FwoGZXIvYXdzE', 'client/secret', 'PRIVATE KEY', 'subject-token', 'header.claims', 'let me in', slurp_file($secret_file)), 'no secret is logged');
$_->{server}->stop for values %chains;

done_testing();
