# What is bounded: the calls of one KEK, so that another one finds room; the files
# that the worker has open; the credentials and the endpoints that it remembers.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my %aws = (aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test', endpoint => $fs->url('kms'));
my $key = $fs->kms_key;
my $folder = PostgreSQL::Test::Utils::tempdir;

# A token and a key of Vault's, of which only one hangs, for each of many KEKs.
my $many = 1100;
my $vault = '127.0.0.1:' . $fs->port('vault', 'https');
my $root = { 'X-Vault-Token' => 'root' };
for my $name ('crowd', 'hung') { http_json('POST', $fs->url('vault') . "/v1/transit/keys/$name", { derived => \1 }, $root) }
my %profiles = (one => {%aws}, other => {%aws});
for my $name ('hung', map { "crowd$_" } 1 .. $many)
{
	# What is asked with one token says nothing of another's endpoint.
	$profiles{$name} = { hosts => [$vault], token => http_json('POST', $fs->url('vault') . '/v1/auth/token/create', { ttl => '24h', policies => ['root'] }, $root)->{auth}{client_token} };
}
my $server = kms_server('bounds', profiles => \%profiles, ca => $fs->{ca},
	conf => [ 'max_connections = 350', 'envelope.kms_connections = 8', 'envelope.cache_size = 4000' ]);

# --- calls ---------------------------------------------------------------------------

for my $name ('one', 'other')
{
	$server->safe_psql('postgres', qq{
		SELECT envelope_create_kek('$name', 'aws-kms://@{[ $name eq 'one' ? $key : $fs->kms_key ]}', '{"profile": "$name"}');
		SELECT envelope_create_tenants(array(SELECT '$name' || g FROM generate_series(1, 300) g), '$name');
	});
}
my $connections = sub { $fs->control('GET', '/connections')->{kms} };
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
$server->restart;    # no connection is left
$fs->fault('kms', 'stall', operation => 'Decrypt', key => $key);
my $before = $connections->();
my @waiting = map { Envelope::Session->new($server)->send("SET envelope.kms_timeout = '60s'; SELECT length(envelope_encrypt('one$_', 'x'))") } 1 .. 20;
ok(eventually(sub { $connections->() - $before >= 8 }), 'a KEK that is alone has all eight connections');
is($server->safe_psql('postgres', q{SET envelope.kms_timeout = '1500ms'; SELECT length(envelope_encrypt('other1', 'x'))}), 46, 'and another one at the same KMS does not wait behind it');
is($connections->() - $before, 9, 'by one connection more');
$fs->well;
is(join(' ', map { $_->wait } @waiting), join(' ', (46) x 20), 'who waited gets an answer by another attempt');
$_->quit for @waiting;

# --- files ---------------------------------------------------------------------------

# 300 calls could run at once, by far more connections than the worker may open.
$server->append_conf('postgresql.conf', "envelope.kms_connections = 400\nenvelope.kms_timeout = '60s'\n");
$server->stop;
system_or_bail('sh', '-c', "ulimit -n 256; exec pg_ctl -w -D '" . $server->data_dir . "' -l '" . $server->logfile . "' start");
$server->_update_pid(1);
my ($possible) = slurp_file($server->logfile) =~ /LOG:  envelope: (\d+) instead of \d+ KMS calls can run at once, since the worker may have only 256 files open/;
cmp_ok($possible // 0, '>', 8, "the worker makes fewer calls at once than it was told ($possible)");
append_to_file("$folder/cold.sql", "\\set n :client_id + 1\nSELECT 1 / (length(envelope_encrypt('one' || :n, 'x')) = 46)::int;\n");
$fs->fault('kms', 'latency', operation => 'Decrypt', ms => 300);
my ($out, $err) = run_command([ 'pgbench', '-n', '-c', 300, '-j', 1, '-t', 1, '-f', "$folder/cold.sql", $server->connstr('postgres') ]);
like($out, qr{actually processed: 300/300}, '300 sessions that want 300 cold keys get them') or diag $err;
is($server->safe_psql('postgres', q{SELECT ok || ' ' || retries FROM envelope.kms_stats WHERE kek = 'one' AND operation = 'unwrap'}), '300 0', 'each by its first attempt');
$fs->well;

# --- credentials and endpoints ----------------------------------------------------------

my $user = Envelope::Session->new($server);
my $kek = sub { my ($name, $uri) = @_; $user->query(qq{SELECT envelope_create_kek('$name', 'hcvault://$vault/transit/keys/$uri', '{"profile": "$name"}')}) };
$kek->('hung', 'hung');
$user->query(q{SELECT envelope_create_tenants(array(SELECT 'hung' || g FROM generate_series(1, 40) g), 'hung'); SELECT envelope_evict_all()});
$fs->fault('vault', 'unavailable', operation => 'decrypt', key => 'hung');
my $turn = 0;
my $cold = sub { $turn = $turn % 40 + 1; return $user->query("SELECT envelope_encrypt('hung$turn', 'x')") };
my $refused = sub { $user->query(q{SELECT coalesce(sum(refused), 0) FROM envelope.kms_stats WHERE kek = 'hung' AND operation = 'unwrap'}) };
ok(eventually(sub { $cold->(); $refused->() > 0 }), 'a Vault that fails is not asked any more');

my $looks = sub { $fs->calls('vault', 'lookup-self') };
my $looked = $looks->();
$kek->("crowd$_", 'crowd') for 1 .. $many;
$user->query("SELECT envelope_create_tenant('crowd' || g, 'crowd' || g) FROM generate_series(1, $many) g");
is($looks->() - $looked, $many, "$many KEKs have a credential each");
is($user->query("SELECT envelope_warm(array['crowd$many'])"), 2, 'one used lately is there');
is($looks->() - $looked, $many, 'still');
is($user->query(q{SELECT envelope_warm(array['crowd1'])}), 2, 'one that made room for others is good');
is($looks->() - $looked, $many + 1, 'and was had anew');

# One call may ask how it is; if it fails, no other does.
my ($asked, $was_refused) = ($fs->calls('vault', 'decrypt'), $refused->());
is($cold->(), 'VE003', 'the one that failed still does') for 1 .. 4;
cmp_ok($refused->() - $was_refused, '>=', 3, 'which is still known, for all the others');
cmp_ok($fs->calls('vault', 'decrypt') - $asked, '<=', 3, 'to all but one that tries');
$fs->well;
is(check_kek($server, 'hung'), 'ok', 'well again');
like($user->query(q{SELECT length(envelope_encrypt('hung1', 'x'))}), qr/^46$/, 'it is asked again');

# After a reload all are had anew, by and by, and each is good meanwhile.
my $renewed = $fs->calls('vault', 'renew-self');
$server->reload;
my %ends;
ok(eventually(sub { $ends{ $user->query("SELECT envelope_evict('crowd$many') = envelope_warm(array['crowd$many'])") }++; $fs->calls('vault', 'renew-self') - $renewed >= 1000 }), 'reloading has all of them renewed');
is(join(' ', keys %ends), 't', 'and none is missed');

$user->quit;

$server->stop;
done_testing();
