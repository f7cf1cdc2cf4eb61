# A KEK that answers at once and is asked without end holds up no other.

use strict;
use warnings;
use Envelope;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('fair', 'envelope.cache_size = 1', 'max_connections = 120');
make_kek($server->{keks}, 'eu');
$server->safe_psql('postgres', q{
	SELECT envelope_create_kek('eu', 'local://eu');
	SELECT envelope_create_tenants(array(SELECT 't' || g FROM generate_series(1, 400) g));
});
set_faults($server, 'eu:delay=1');

my $folder = PostgreSQL::Test::Utils::tempdir;
append_to_file("$folder/cold.sql", "\\set t random(1, 400)\nSELECT envelope_encrypt('t' || :t, 'x');\n");
my ($in, $out, $err) = ('', '', '');
my $flood = IPC::Run::start(
	[ 'pgbench', '-n', '-c', '100', '-j', '1', '-T', '60', '-f', "$folder/cold.sql", $server->connstr('postgres') ],
	'<', \$in, '>', \$out, '2>', \$err);
ok(eventually(sub { calls($server, 'unwrap') > 1000 }), 'a hundred sessions want keys that are not in memory');

# In calls, not in seconds: a slow machine is slow for both.
my $session = Envelope::Session->new($server);
my $checks = 20;
my $before = calls($server, 'unwrap');
my %outcomes;
$outcomes{ $session->query(q{SELECT outcome FROM envelope_check_kek('eu')}) }++ for 1 .. $checks;
my $calls = (calls($server, 'unwrap') - $before) / $checks;
is_deeply(\%outcomes, { ok => $checks }, 'another KEK answers meanwhile');
cmp_ok($calls, '<', 2000, 'as soon as its turn comes') or diag "$calls calls of the busy KEK for each";
$flood->kill_kill;
$session->quit;

$server->stop;
done_testing();
