# python: kms
#
# What others could do to the KMS calls of a server that is none of their
# business: rows that are no keys, tokens that die at the wrong moment, replies
# that come back in one but belong to many, many KEKs of a server that hangs, a
# proxy that speaks for the KMS.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my $vault = '127.0.0.1:' . $fs->port('vault', 'https');
my $folder = PostgreSQL::Test::Utils::tempdir;
sub vault { my ($method, $path, $body) = @_; return http_json($method, $fs->url('vault') . "/v1/$path", $body, { 'X-Vault-Token' => 'root' }); }
sub vault_key { my ($name) = @_; vault('POST', "transit/keys/$name", { derived => \1 }); return "hcvault://$vault/transit/keys/$name"; }

my $secret_id;
sub approle
{
	my ($name) = @_;
	vault('POST', "sys/policies/acl/$name", { policy => qq{path "transit/*" { capabilities = ["update"] }} });
	vault('POST', "auth/approle/role/$name", { token_policies => [$name], token_ttl => '1h' });
	my $role = vault('GET', "auth/approle/role/$name/role-id")->{data}{role_id};
	$secret_id = vault('POST', "auth/approle/role/$name/secret-id", {})->{data}{secret_id};
	return { role_id => $role, secret_id => $secret_id, hosts => [$vault] };
}
write_file("$folder/token", 'root');

# A proxy that lets everything through, and has something to say itself.
my $proxy = IO::Socket::INET->new(Listen => 10, LocalAddr => '127.0.0.1') or die $!;
my $proxy_pid = fork // die $!;
if ($proxy_pid == 0)
{
	local $SIG{CHLD} = 'IGNORE';
	while (my $client = $proxy->accept)
	{
		next if fork;
		my ($line, $port) = ('');
		while (defined($line = <$client>) && $line ne "\r\n") { $port = $1 if $line =~ /^CONNECT metadata\.test:(\d+) / }
		my $to = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or POSIX::_exit(1);
		syswrite $client, "HTTP/1.1 200 OK\r\nx-amzn-ErrorType: AccessDeniedException\r\nx-amzn-RequestId: of-the-proxy\r\n\r\n";
		if (fork) { while (sysread $client, my $bytes, 4096) { syswrite $to, $bytes } }
		else { while (sysread $to, my $bytes, 4096) { syswrite $client, $bytes } }
		$_->shutdown(2) for $client, $to;
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}
END { my $status = $?; kill 'TERM', $proxy_pid if $proxy_pid; $? = $status }

my $server = kms_server('hostile', ca => $fs->{ca},
	profiles => { vault => { token => 'root', hosts => [$vault] }, role => approle('short'), file => { token_file => "$folder/token", hosts => [$vault] },
		(map { ("hung$_" => { token => 'root', hosts => [$vault] }) } 1 .. 16),
		proxied => { aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test', endpoint => 'https://metadata.test:' . $fs->port('kms', 'https') },
		inside => { %{ approle('inside') }, namespace => 'ours' },
		aws => { aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test', endpoint => $fs->url('kms', 'https'), sts_endpoint => $fs->url('sts', 'https') } },
	env => { https_proxy => 'http://127.0.0.1:' . $proxy->sockport },
	conf => [ 'max_connections = 200', 'envelope.log_kms_calls = on', 'envelope.cache_size = 2000' ]);
my $worker = worker_pid($server);
my $user = Envelope::Session->new($server);
sub kek { my ($name, $uri, $profile, $more) = @_; return $user->query(qq{SELECT envelope_create_kek('$name', '$uri', '{"profile": "$profile"$more}')}); }
kek('vault', vault_key('vault'), 'vault', '');
kek('role', vault_key('role'), 'role', '');
kek('file', vault_key('file'), 'file', '');

# --- batches ---------------------------------------------------------------------

# Each gets the answer to its own question, however those of a batch come to be
# asked together: re-wrapped and then unwrapped, or again after a failure.
$user->query(q{SELECT count(envelope_create_tenants(array(SELECT 'b' || g FROM generate_series(1, 200) g), 'vault'))});
vault('POST', 'transit/keys/vault/rotate', {});
is($user->query(q{CALL envelope_rotate_kek('vault')}), '', 'all keys are re-wrapped');
is($user->query(q{SELECT keys_by_version FROM envelope.status WHERE kek = 'vault'}), '{"2": 400}', 'every one');

$user->query(q{SELECT envelope_evict_all()});
# No more often than a call is tried again.
$fs->fault('vault', 'unavailable', operation => 'decrypt', count => 2);
is($user->query(q{SELECT envelope_warm(array(SELECT 'b' || g FROM generate_series(1, 200) g))}), 400, 'and unwrapped, though Vault failed at first');
is($user->query(q{SELECT sum(corrupt) FROM envelope.kms_stats WHERE kek = 'vault'}), 0, 'none was taken for another');
$fs->well;

# Rows that are no wrapped keys, among others: they alone are corrupt.
my $stats = q{SELECT unreachable || ' ' || corrupt FROM envelope.kms_stats WHERE kek = 'vault' AND operation = 'unwrap'};
my @was = split / /, $user->query($stats);
$server->safe_psql('postgres', q{
	SELECT envelope_evict_all();
	INSERT INTO envelope.tenants (tenant_id, kek) SELECT 'p' || g, 'vault' FROM generate_series(1, 3) g;
	INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, kek_version, wrapped_dek, key_check, state)
		SELECT 1000 + g, 'p' || g, 'data', 'vault', '1', '\xfffe80c0', decode(repeat('00', 32), 'hex'), 'active' FROM generate_series(1, 3) g;
});
is($user->query(q{SELECT envelope_warm(array(SELECT 'b' || g FROM generate_series(1, 100) g) || array['p1', 'p2', 'p3'] || array(SELECT 'b' || g FROM generate_series(101, 200) g))}),
	400, 'keys are warmed beside rows that are none');
is($user->query($stats), join(' ', $was[0], $was[1] + 3), 'which alone are corrupt');

# --- a token that dies just after it was had -------------------------------------------

$user->query(q{SELECT envelope_create_tenant('role', 'role')});
$user->query(q{CREATE TABLE role_sealed AS SELECT envelope_encrypt('role', 'of role') AS v});
for my $time (1 .. 3)
{
	$user->query(q{SELECT envelope_evict_all()});
	is($user->query(q{SELECT envelope_decrypt('role', v) FROM role_sealed}), 'of role', 'opened by a token');
	$user->query(q{SELECT envelope_evict_all()});
	$fs->control('POST', '/revoke', {});
	is($user->query(q{SELECT envelope_decrypt('role', v) FROM role_sealed}), 'of role', 'a token that is dead is no denial');
}

# --- credentials that no KMS takes ------------------------------------------------------

my $arn = $fs->kms_key(KeyId => 'hostile');
kek('aws', "aws-kms://$arn", 'aws', ', "role_arn": "arn:aws:iam::111122223333:role/hostile"');
is(check_kek($server, 'aws'), 'ok', 'by a role');
$user->query(q{SELECT count(envelope_create_tenants(array(SELECT 'a' || g FROM generate_series(1, 40) g), 'aws'))});
$user->query(q{SELECT envelope_evict_all()});
$fs->fault('kms', 'error', operation => 'Decrypt', code => 'UnrecognizedClientException');
my $before = $fs->calls('sts');
$user->query("SELECT envelope_encrypt('a$_', 'x')") for 1 .. 40;
cmp_ok($fs->calls('kms', 'Decrypt'), '>=', 40, 'each key is asked for');
cmp_ok($fs->calls('sts') - $before, '<', 8, 'a new one is not had for each key');
$fs->well;
ok(eventually(sub { check_kek($server, 'aws') eq 'ok' }), 'well again');

# A page of somebody in between is not STS that refuses.
for my $fault ('html403', 'empty403')
{
	kek("aws-$fault", "aws-kms://$arn", 'aws', qq{, "role_arn": "arn:aws:iam::111122223333:role/$fault"});
	$fs->fault('sts', $fault, key => $fault);
	is(check_kek($server, "aws-$fault"), 'unreachable', "$fault of STS");
}
kek('aws-told', "aws-kms://$arn", 'aws', qq{, "role_arn": "arn:aws:iam::111122223333:role/told"});
$fs->fault('sts', 'error', key => 'told', code => "Denied\r\n\e[2J forged", status => 403);
my ($outcome, $detail) = check_kek($server, 'aws-told');
is($outcome, 'misconfigured', 'STS that refuses');
unlike(slurp_file($server->logfile), qr/\e/, 'no control character comes to the log');
$fs->well;

# --- secrets where they do not belong ------------------------------------------------------

my $secret = 'hvs.' . 'CAESIJthisIsSecret';
is($user->query($_), '22023', 'refused') for
	qq{SELECT envelope_create_kek('s1', 'hcvault://$vault/transit/keys/s1', '{"token": "$secret"}')},
	qq{SELECT envelope_create_kek('s2', 'hcvault://u:$secret\@$vault/transit/keys/s1')},
	qq{SELECT envelope_create_kek('s3', 'hcvault://$vault/transit/keys/s1', '{"pwd": "$secret"}')},
	qq{SELECT envelope_create_kek('s4', 'https://u:$secret\@$vault/transit/keys/s1')},
	qq{SELECT envelope_alter_kek('vault', '{"secret_id": "$secret"}')};
# The test's server logs all statements, which is not the extension's doing.
unlike(join("\n", grep { !/ LOG:  statement: / } split /\n/, slurp_file($server->logfile)), qr/thisIsSecret/, 'and the log does not repeat what was refused');
is($user->query(qq{SELECT envelope_create_kek('r', 'aws-kms://arn:aws:kms:$_:111122223333:key/x')}), '22023', "$_ is no region") for 's3', 'a.b', 's3-us-east-1', 'us-east-1-elb';

# --- a file that comes late -----------------------------------------------------------------

unlink "$folder/token";
$user->query(q{SELECT pg_reload_conf()});
ok(eventually(sub { check_kek($server, 'file') eq 'misconfigured' }), 'a token file that is not there');
# Asked for again and again, it is looked for less and less often.
my $until = now() + 8;
check_kek($server, 'file') while now() < $until;
write_file("$folder/token", 'root');
my $from = now();
ok(eventually(sub { check_kek($server, 'file') eq 'ok' }), 'is found when it is');
cmp_ok(now() - $from, '<', 5, 'soon');

# --- many KEKs of a server that hangs ---------------------------------------------------------

for my $kek (map { "hung$_" } 1 .. 16)
{
	kek($kek, vault_key($kek), $kek, '');
	$user->query(qq{SELECT envelope_create_tenants(array(SELECT '$kek-' || g FROM generate_series(1, 6) g), '$kek')});
}
$user->query(q{SELECT envelope_create_tenant('local', 'platform')});
$user->query(q{SELECT envelope_evict_all()});
$fs->fault('vault', 'stall', operation => 'decrypt', key => 'hung');
my @waiting = map { Envelope::Session->new($server) } 1 .. 96;
$waiting[$_]->send(sprintf q{SELECT envelope_encrypt('hung%d-%d', 'x')}, $_ % 16 + 1, $_ / 16 + 1) for 0 .. 95;
ok(eventually(sub { $user->query(q{SELECT sum(waits) FROM envelope.kms_stats WHERE kek LIKE 'hung%' AND operation = 'unwrap'}) >= 96 }), 'many wait for a Vault that hangs, by many KEKs');
is($user->query(q{SET envelope.kms_timeout = '1500ms'; SELECT length(envelope_encrypt('local', 'x'))}), 46, 'which holds up nobody else');
is(join(' ', map { $_->wait } @waiting), join(' ', ('VE003') x 96), 'them alone');
$_->quit for @waiting;
$fs->well;

# --- a namespace that others run --------------------------------------------------------------------

$fs->settings(namespace => 'ours/below');
my $logins = $fs->calls('vault', 'login');
my $inside = vault_key('vault');
for my $namespace ('theirs', 'oursandmore', 'our')
{
	kek("in-$namespace", $inside, 'inside', qq{, "namespace": "$namespace"});
	($outcome, $detail) = check_kek($server, "in-$namespace");
	like("$outcome $detail", qr/^misconfigured .*namespace/, "a profile for ours is not shown in $namespace");
}
is($fs->calls('vault', 'login'), $logins, 'nobody has logged in');
kek('in-below', $inside, 'inside', ', "namespace": "ours/below"');
is(check_kek($server, 'in-below'), 'ok', 'in one below it is');
$fs->settings(namespace => '');

# --- a check, when others are not asked ------------------------------------------------------------

$user->query(q{SELECT envelope_evict_all()});
$fs->fault('vault', 'html403', operation => 'decrypt');
ok(eventually(sub { $user->query(q{SELECT envelope_encrypt('b' || (1 + random() * 199)::int, 'x')}); $user->query(q{SELECT refused > 0 FROM envelope.kms_stats WHERE kek = 'vault' AND operation = 'unwrap'}) eq 't' }), 'a Vault that fails is not asked any more');
$fs->well;
is(check_kek($server, 'vault'), 'ok', 'but to check whether it is back');
is($user->query(q{SELECT length(envelope_encrypt('b1', 'x'))}), 46, 'from when on it is asked again');

# --- a proxy that speaks for the KMS -------------------------------------------------------------

kek('proxied', "aws-kms://$arn", 'proxied', '');
$fs->fault('kms', 'html502', operation => 'GenerateDataKey');
is(check_kek($server, 'proxied'), 'unreachable', 'what a proxy says is no answer of the KMS');
is((grep { ($_->{request_id} // '') eq 'of-the-proxy' } kms_log($server)), 0, 'nor is its id in the log');
$fs->well;
ok(eventually(sub { check_kek($server, 'proxied') eq 'ok' }), 'the KMS is heard through it');
is(worker_pid($server), $worker, 'the worker has borne it all');

$user->quit;
$server->stop;
done_testing();
