# when: all
#
# A KMS whose address swallows what is sent to it: nothing tells that it is gone
# but that no answer comes.  Keys in use live on all the same, to the end of the
# grace; only the life of a key must be long enough for a refresh to have failed
# before its end.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my $key = $fs->kms_key;
my $server = kms_server('blackhole', ca => $fs->{ca},
	env => { AWS_ENDPOINT_URL_KMS => $fs->url('kms', 'https'), AWS_ACCESS_KEY_ID => 'AKIDENVELOPETEST', AWS_SECRET_ACCESS_KEY => 'secret/of+the=test' },
	conf => [ "envelope.cache_ttl = '60s'", "envelope.outage_grace = '30s'" ]);
$server->safe_psql('postgres', qq{
	SELECT envelope_create_kek('aws', 'aws-kms://$key');
	SELECT envelope_create_tenant('t1', 'aws');
	CREATE TABLE sealed AS SELECT envelope_encrypt('t1', 'x') AS v;
	SELECT envelope_evict_all();
});
my $user = Envelope::Session->new($server);
my $open = q{SELECT envelope_decrypt('t1', v) FROM sealed};
is($user->query($open), 'x', 'opens');
my $start = now();
$fs->listen('kms', 'blackhole');
my $load = run_load($server, q{SELECT 1 / (envelope_decrypt('t1', v) = 'x')::int FROM sealed}, 75, 2, 20);
cmp_ok(finish_load($load), '>', 1000, 'no statement fails while the KMS is a black hole, past the TTL');
ok(eventually(sub { $user->query($open) eq 'VE003' }), 'to the end of the grace');
note sprintf 'with a TTL of 60 s and a grace of 30 s, after %.1f s', now() - $start;
$fs->listen('kms', 'open');
ok(eventually(sub { $user->query($open) eq 'x' }), 'and opens again by itself');

$user->quit;
$server->stop;
done_testing();
