# packages: curl
# python: kms
#
# KEKs in AWS KMS: from nothing by the words of the guide, under exactly its
# policies (moto, which checks signatures and IAM, behind TLS with keep-alive);
# the states of keys as two emulators enforce them; a customer's own key in
# another account, and the exact errors, by the fault server.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir;
my %aws = map { $_ => start_aws($_) } 'moto', 'roto', 'ministack';
my $fs = fault_server();
$fs->set('proxy', 'port', $aws{moto}{port} + 0);

# --- the guide, against moto --------------------------------------------------

my @shell = grep { /^aws |aws kms create-key/m && !/grep/ } doc_blocks('kms-aws.md', 'sh');
is(scalar(@shell), 2, 'the guide has its commands');
my ($everyday, $move, $profiles) = doc_blocks('kms-aws.md', 'json');
is(join(' ', sort @{ JSON::PP::decode_json($everyday)->{Statement}[0]{Action} }), 'kms:Decrypt kms:DescribeKey kms:GenerateDataKey',
	'the everyday policy is these three');
is(join(' ', sort @{ JSON::PP::decode_json($move)->{Statement}[0]{Action} }), 'kms:Encrypt kms:ReEncrypt*', 'and that for a move these two');
# moto looks at actions, not at resources.
my $anywhere = sub { $_[0] =~ s/"Resource": "[^"]*"/"Resource": "*"/r };
write_file("$folder/envelope.json", $anywhere->($everyday));
write_file("$folder/envelope-move.json", $anywhere->($move));
my $bin = EnvelopeKms::python() =~ s{/python$}{}r;
my %operator = (PATH => "$bin:$ENV{PATH}", HOME => $folder, AWS_ENDPOINT_URL => $aws{moto}{url}, AWS_DEFAULT_REGION => 'us-east-1',
	AWS_ACCESS_KEY_ID => 'AKIAIOSFODNN7EXAMPLE', AWS_SECRET_ACCESS_KEY => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
my ($key) = run_doc($folder, \%operator, @shell) =~ /^(arn:aws:kms:\S+)$/m;
like($key, qr/^arn:aws:kms:us-east-1:\d+:key/, 'they run');
my $access = aws_call($aws{moto}, 'iam', 'create_access_key', { UserName => 'envelope' })->{AccessKey};
# A role that may do what the user may, and that the user may assume
my $assume = sub { my ($more) = @_; JSON::PP::encode_json({ Version => '2012-10-17', Statement => [ { Effect => 'Allow', Action => 'sts:AssumeRole', %$more } ] }) };
my $moto_role = aws_call($aws{moto}, 'iam', 'create_role', { RoleName => 'moved', AssumeRolePolicyDocument => $assume->({ Principal => { AWS => '*' } }) })->{Role}{Arn};
aws_call($aws{moto}, 'iam', 'put_role_policy', { RoleName => 'moved', PolicyName => 'envelope', PolicyDocument => slurp_file("$folder/envelope.json") });
aws_call($aws{moto}, 'iam', 'put_user_policy', { UserName => 'envelope', PolicyName => 'assume', PolicyDocument => $assume->({ Resource => $moto_role }) });
{
	# From here on moto asks who calls, and what they may do.
	my $out = '';
	IPC::Run::run([ 'curl', '-s', '-H', 'Content-Type: text/plain', '-d', '0', "$aws{moto}{url}/moto-api/reset-auth" ], '>', \$out);
	like($out, qr/ok/, 'moto checks signatures');
}

my %profile = (
	moto => { hosts => [ '127.0.0.1:' . $fs->port('proxy', 'https') ], endpoint => $fs->url('proxy', 'https'),
		aws_access_key_id => $access->{AccessKeyId}, aws_secret_access_key => $access->{SecretAccessKey} },
	(map { $_ => { hosts => ["127.0.0.1:$aws{$_}{port}"], endpoint => $aws{$_}{url}, aws_access_key_id => 'AKIAIOSFODNN7EXAMPLE',
				aws_secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' } } 'roto', 'ministack'));
# Failures ordered for this one are not held against the others.
$profile{errors} = { hosts => [ '127.0.0.1:' . $fs->port('kms') ], endpoint => $fs->url('kms'), aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test' };
$profile{forger} = { %{ $profile{moto} }, aws_secret_access_key => 'not the secret' };
$profile{sts} = { %{ $profile{moto} }, sts_endpoint => $fs->url('proxy', 'https') };

my $server = kms_server('aws', ca => $fs->{ca}, profiles => \%profile,
	env => { AWS_ENDPOINT_URL_KMS => $fs->url('kms'), AWS_ENDPOINT_URL_STS => $fs->url('sts'),
		AWS_ACCESS_KEY_ID => 'AKIDENVELOPETEST', AWS_SECRET_ACCESS_KEY => 'secret/of+the=test' },
	conf => [ "envelope.cache_ttl = '4s'", "envelope.outage_grace = '5s'", 'max_connections = 120', 'envelope.log_kms_calls = on' ]);
my $user = Envelope::Session->new($server);
my $open = q{SELECT envelope_decrypt(tenant, v) FROM sealed WHERE tenant = '%s'};
$user->query('CREATE TABLE sealed (tenant text, v bytea)');

sub kek
{
	my ($name, $arn, %options) = @_;
	my $options = JSON::PP::encode_json(\%options);
	return $server->safe_psql('postgres', "SELECT envelope_create_kek('$name', 'aws-kms://$arn', '$options')");
}

# A tenant of a KEK of the same name, and a value of it.
sub tenant
{
	my ($name) = @_;
	return $server->safe_psql('postgres', "SELECT envelope_create_tenant('$name', '$name'); INSERT INTO sealed VALUES ('$name', envelope_encrypt('$name', 'of $name'))");
}

sub opens_cold
{
	my ($name) = @_;
	$user->query("SELECT envelope_evict('$name')");
	return $user->query(sprintf $open, $name);
}

kek('moto', $key, profile => 'moto');
is_deeply([ check_kek($server, 'moto') ], [ 'ok', '' ], 'the KEK of the guide is checked, under its everyday policy');
tenant('moto');
is(opens_cold('moto'), 'of moto', 'generated and unwrapped');
my $connections = $fs->control('GET', '/connections')->{proxy};
opens_cold('moto') for 1 .. 20;
is($fs->control('GET', '/connections')->{proxy}, $connections, 'one connection is kept for one call after another');
kek('forger', $key, profile => 'forger');
isnt(check_kek($server, 'forger'), $_, "a wrong secret is not $_") for 'ok', 'denied';
kek('assumed', $key, profile => 'sts', role_arn => $moto_role);
is_deeply([ check_kek($server, 'assumed') ], [ 'ok', '' ], 'with a role that was assumed of moto');

# --- states, as the emulators enforce them -------------------------------------

my %made;
for my $kind ('roto', 'ministack')
{
	$made{$kind} = aws_call($aws{$kind}, 'kms', 'create_key', {})->{KeyMetadata}{Arn};
	kek($kind, $made{$kind}, profile => $kind);
	is(check_kek($server, $kind), 'ok', "$kind: a KEK");
	tenant($kind);
	is(opens_cold($kind), "of $kind", "$kind: generated and unwrapped");
}
aws_call($aws{roto}, 'kms', 'disable_key', { KeyId => $made{roto} });
is(opens_cold('roto'), 'VE002', 'roto: a disabled key is denied');
aws_call($aws{roto}, 'kms', 'enable_key', { KeyId => $made{roto} });
ok(eventually(sub { $user->query(sprintf $open, 'roto') eq 'of roto' }), 'roto: enabled, it opens by itself');
aws_call($aws{ministack}, 'kms', 'schedule_key_deletion', { KeyId => $made{ministack}, PendingWindowInDays => 7 });
is(opens_cold('ministack'), 'VE002', 'ministack: a key that is to be deleted is denied');
is(opens_cold('moto'), 'of moto', 'another KEK is not concerned');
# What one key wrapped is nothing to another.
my $other = aws_call($aws{roto}, 'kms', 'create_key', {})->{KeyMetadata}{Arn};
kek('impostor', $other, profile => 'roto');
$server->safe_psql('postgres', q{SELECT envelope_create_tenant('impostor', 'impostor')});

# --- the exact errors -----------------------------------------------------------

my $platform = $fs->kms_key;
$fs->kms('CreateAlias', { AliasName => 'alias/tenants', TargetKeyId => $platform });
my $alias = $platform =~ s{:key/.*}{:alias/tenants}r;
my $ours = 'arn:aws:iam::111122223333:user/envelope';
kek('fs', $platform);
kek('alias', $alias);
is(check_kek($server, $_), 'ok', "$_: by the environment's credentials") for 'fs', 'alias';
tenant($_) for 'fs', 'alias';
is(opens_cold('alias'), 'of alias', 'by an alias');
is($server->safe_psql('postgres', q{SELECT DISTINCT kek_version FROM envelope.tenant_keys WHERE tenant_id = 'alias'}), $platform,
	'the ARN of the key that answered is stored');
my $elsewhere = $fs->kms_key;
$fs->kms('UpdateAlias', { AliasName => 'alias/tenants', TargetKeyId => $elsewhere });
is(opens_cold('alias'), 'of alias', 'an alias that is moved strands nothing');
my ($bound) = reverse grep { $_->{operation} eq 'Decrypt' } $fs->log('kms');
is(join(' ', sort keys %{ $bound->{context} }), 'envelope:key_id envelope:tenant', 'each call is bound to tenant and key id');
is($bound->{context}{'envelope:tenant'}, 'alias', 'as CloudTrail shows');
is($bound->{key}, $platform, 'and names the key');

# Least privilege, with resources: under exactly the policies of the guide.
my $statements = sub { my $policy = JSON::PP::decode_json($_[0])->{Statement}; $_->{Resource} = $platform for @$policy; return $policy };
$fs->control('POST', '/policy', { arn => $ours, statements => $statements->($everyday) });
is(check_kek($server, 'fs'), 'ok', 'the everyday policy of the guide is enough for every day');
is(opens_cold('fs'), 'of fs', 'to open');
is(sqlstate($server, q{SELECT envelope_create_tenant('fs2', 'fs')}) =~ /^\d+$/, 1, 'and to provision');
for my $missing ('kms:GenerateDataKey', 'kms:Decrypt')
{
	$fs->control('POST', '/policy', { arn => $ours, statements => [ { Effect => 'Allow', Resource => '*', Action => [ grep { $_ ne $missing } 'kms:GenerateDataKey', 'kms:Decrypt', 'kms:DescribeKey' ] } ] });
	my ($outcome, $detail) = check_kek($server, 'fs');
	is($outcome, 'denied', "without $missing");
	my $operation = $missing =~ s/kms://r;
	like($detail, qr/AccessDenied|permission|$operation/, 'check says what is missing');
}
$fs->control('POST', '/policy', { arn => $ours });

# Answers, each as the outcome that it means.
my %means = (
	DisabledException => 'denied', KMSInvalidStateException => 'denied', NotFoundException => 'denied', AccessDeniedException => 'denied',
	'com.amazonaws.kms#DisabledException:http://internal.amazon.com/' => 'denied',
	ThrottlingException => 'unreachable', LimitExceededException => 'unreachable', KMSInternalException => 'unreachable', DependencyTimeoutException => 'unreachable',
	KeyUnavailableException => 'unreachable', InvalidCiphertextException => 'corrupt', IncorrectKeyException => 'corrupt',
	ValidationException => 'misconfigured', InvalidKeyUsageException => 'misconfigured', InvalidArnException => 'misconfigured');
kek('errors', $platform, profile => 'errors');
for my $code (sort keys %means)
{
	$fs->fault('kms', 'error', operation => 'Decrypt', code => $code, message => 'secret-in-message');
	my ($outcome, $detail) = check_kek($server, 'errors');
	$fs->well;
	is($outcome, $means{$code}, "$code is $means{$code}");
	unlike($detail, qr/secret-in-message/, 'and the reply is not repeated');
}
ok(eventually(sub { check_kek($server, 'errors') eq 'ok' }), 'and well again');
is($server->safe_psql('postgres', q{SELECT throttled > 0, retries > 0, denied > 0, unreachable > 0, corrupt > 0 FROM envelope.kms_stats WHERE kek = 'errors' AND operation = 'check'}),
	't|t|t|t|t', 'each was counted as what it is');

# --- a customer's own key, in another account -----------------------------------

my $customer = $fs->kms_key(Account => '999988887777');
my $role = 'arn:aws:iam::999988887777:role/envelope';
$fs->set('sts', 'roles', { $role => { external_id => 'c2a1f0' } });
kek('acme', $customer, role_arn => $role, external_id => 'c2a1f0');
is(check_kek($server, 'acme'), 'ok', 'a role of the customer, by its external id');
tenant('acme');
is(opens_cold('acme'), 'of acme', 'opens under the key of the customer');
is((grep { $_->{operation} eq 'Decrypt' } $fs->log('kms'))[-1]{principal} =~ m{^arn:aws:sts::999988887777:assumed-role/envelope/}, 1, 'as that role');
my $assumed = $fs->calls('sts', 'AssumeRole');
opens_cold('acme') for 1 .. 10;
is($fs->calls('sts', 'AssumeRole'), $assumed, 'which is assumed once, not for each call');
kek('no_id', $customer, role_arn => $role);
my ($outcome, $detail) = check_kek($server, 'no_id');
isnt($outcome, 'ok', 'without the external id');
like($detail, qr/assume|role|STS/i, 'check says that the role is not to be had');
kek('direct', $customer);
is(check_kek($server, 'direct'), 'denied', 'and without the role');

# Withdrawn by the customer, in their account; nothing is done here.
$server->safe_psql('postgres', q{SELECT envelope_warm(array['acme', 'fs'])});
is($user->query(sprintf $open, 'acme'), 'of acme', 'before, it opens');
$fs->kms('DisableKey', { KeyId => $customer });
my $start = now();
my ($end, %others);
eventually(sub { $others{ $user->query(sprintf $open, 'fs') }++; $end = $user->query(sprintf $open, 'acme'); $end ne 'of acme' });
my $seconds = now() - $start;
is($end, 'VE002', 'disabled: denied');
cmp_ok($seconds, '<', 4 + 5 + 10, 'within TTL and five seconds');
ok(eventually(sub { $user->query(q{SELECT count(*) FROM envelope.cache WHERE tenant_id = 'acme'}) eq '0' }), 'and no copy is in the cache');
note sprintf 'no session reads after %.1f s, no copy after %.1f s, with a TTL of 4 s', $seconds, now() - $start;
is(join(' ', keys %others), 'of fs', 'other tenants go on');
$fs->kms('EnableKey', { KeyId => $customer });
ok(eventually(sub { $user->query(sprintf $open, 'acme') eq 'of acme' }), 'enabled: opens again by itself');

# --- the log of calls -----------------------------------------------------------

my %recorded = map { ($_->{request_id} => $_) } $fs->log('kms');
my @ok = grep { $_->{outcome} eq 'ok' && $_->{kek} eq 'acme' } kms_log($server);
cmp_ok(scalar(@ok), '>', 5, 'calls are logged');
is(scalar(grep { !$recorded{ $_->{request_id} } } @ok), 0, 'each with the id that KMS has recorded it under');
is(scalar(grep { ($recorded{ $_->{request_id} }{context}{'envelope:tenant'} // '') ne ($_->{tenant} // 'envelope_check_kek') } grep { $_->{operation} ne 'check' } @ok), 0, 'for the same tenant');
my $log = slurp_file($server->logfile);
ok(!(grep { index($log, $_) >= 0 } 'secret/of+the=test', 'secret-in-message', $access->{SecretAccessKey}, 'FwoGZXIvYXdzE'), 'no secret is logged');

# --- secrets as options -----------------------------------------------------------

for my $name ('aws_secret_access_key', 'AWS_Secret_Access_Key', 'token', 'secret_id', 'password', 'session-token')
{
	my ($rc, $out, $err) = $server->psql('postgres', qq{SELECT envelope_create_kek('bad', 'aws-kms://$platform', '{"$name": "hunter2"}')});
	like($err, qr/"$name"/, "option $name is refused by name");
	unlike($err, qr/hunter2/, 'and the value not shown');
	like($err, qr/HINT:.*credentials_file/, 'with a hint to where it belongs');
}

$user->quit;
$server->stop;
done_testing();
