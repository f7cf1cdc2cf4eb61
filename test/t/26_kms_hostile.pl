# python: kms
#
# What others could do to the KMS calls of a server that is none of their
# business: rows that are no keys, tokens that die at the wrong moment, replies
# that come back in one but belong to many.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
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
my $server = kms_server('hostile', ca => $fs->{ca},
	profiles => { vault => { token => 'root', hosts => [$vault] }, role => approle('short'), file => { token_file => "$folder/token", hosts => [$vault] },
		aws => { aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test', endpoint => $fs->url('kms', 'https'), sts_endpoint => $fs->url('sts', 'https') } },
	conf => [ 'max_connections = 200', 'envelope.cache_size = 2000' ]);
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

is($user->query(q{SELECT envelope_evict_all()}) =~ /^VE/ ? 'no' : 'yes', 'yes', 'forgotten');
$fs->fault('vault', 'unavailable', operation => 'decrypt', count => 4);
is($user->query(q{SELECT envelope_warm(array(SELECT 'b' || g FROM generate_series(1, 200) g))}), 400, 'and unwrapped, though Vault failed at first');
is($user->query(q{SELECT sum(corrupt) FROM envelope.kms_stats WHERE kek = 'vault'}), 0, 'none was taken for another');
$fs->well;

$user->quit;
$server->stop;
done_testing();
