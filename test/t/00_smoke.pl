# Sealing and opening on a server as it is installed; and every way in which the
# file of a local KEK can be wrong.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('smoke');
my $keks = $server->{keks};

is($server->safe_psql('postgres', q{
		SELECT envelope_create_tenants(array['t1', 't2']);
		CREATE TABLE sealed AS SELECT g, envelope_encrypt('t1', 'value ' || g, 'c') AS v FROM generate_series(1, 100) g;
		SELECT count(envelope_decrypt('t1', v, 'c')) FROM sealed}),
	"2\n100", 'seals and opens');
# The test server logs every statement, which doctor does not like.
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope_doctor() WHERE subject NOT LIKE 'setting%'}), 0, 'doctor is content');

$server->restart;
is($server->safe_psql('postgres', q{SELECT envelope_decrypt('t1', v, 'c') FROM sealed WHERE g = 7}),
	'value 7', 'opens after a restart');

# check: what envelope_check_kek says, once the worker has forgotten the past
sub check
{
	return $server->safe_psql('postgres', q{SELECT outcome || ': ' || coalesce(detail, '') FROM envelope_check_kek('platform')});
}

sub open_value
{
	$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
	return sqlstate($server, q{SELECT envelope_decrypt('t1', v, 'c') FROM sealed WHERE g = 7});
}

my $file = "$keks/platform.1.key";

# The worker, as the operating system and the module show it
my $worker = worker_pid($server);
like(slurp_file("/proc/$worker/cmdline"), qr/envelope KMS worker/, 'the worker runs');
is($server->safe_psql('postgres', 'SELECT preloaded FROM envelope.get_server()'), 't', 'preloaded');

# A file that is taken away, and is not there when the server starts
rename $file, "$keks/away" or die;
like(check(), qr/^denied: there is no file "platform\.N\.key"/, 'a missing file is named');
is(open_value(), 'VE002', 'nothing opens without it');
$server->restart;
is(open_value(), 'VE002', 'the server starts without it');
my (undef, undef, $missing) = $server->psql('postgres', q{SELECT envelope_decrypt('t1', v, 'c') FROM sealed WHERE g = 7});
like($missing, qr/KEK "platform": there is no file "platform\.1\.key"/, 'the error names KEK and file');
is(sqlstate($server, q{SELECT envelope_create_tenant('t4')}), 'VE002', 'no tenant is made');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenants WHERE tenant_id = 't4'}) . (-e $file ? 1 : 0), '00', 'nothing is created in place of what is missing');
rename "$keks/away", $file or die;
is(check(), 'ok: ', 'a file that is put back counts without a restart');
is(open_value(), 'value 7', 'and all opens again');

# Another key of the right length
rename $file, "$keks/away" or die;
make_kek($keks, 'platform');
like(check(), qr/^ok/, 'another key is a key');
is(open_value(), 'VE004', 'but not the one that wrapped');
my (undef, undef, $stderr) = $server->psql('postgres', q{SELECT envelope_decrypt('t1', v, 'c') FROM sealed WHERE g = 7});
like($stderr, qr/wrong key: file "platform\.1\.key"/, 'which the error says');
rename "$keks/away", $file or die;

# Modes and lengths
for my $mode (0640, 0604, 0700, 0666)
{
	chmod $mode, $file;
	like(check(), qr/^misconfigured: file "platform\.1\.key" has mode 0[0-7]{3}, not 0600/, sprintf('mode %04o is refused', $mode));
}
is(open_value(), 'VE003', 'what is set up wrongly is not denied');
chmod 0400, $file;
like(check(), qr/^ok/, 'mode 0400 is fine');
chmod 0600, $file;
for my $length (0, 31, 33)
{
	rename $file, "$keks/away" or die;
	append_to_file($file, 'x' x $length);
	chmod 0600, $file;
	like(check(), qr/^misconfigured: file "[^"]*" is not 32 bytes long/, "a file of $length bytes is refused");
	unlink $file;
	rename "$keks/away", $file or die;
}
rename $file, "$keks/away" or die;
mkdir $file;
like(check(), qr/^misconfigured: /, 'a directory is refused');
rmdir $file;
symlink "$keks/away", $file;
like(check(), qr/^ok/, 'a link is followed');
unlink $file;
SKIP: {
	skip 'this user owns all files', 1 if $> == 0;
	symlink '/etc/passwd', $file;
	like(check(), qr/^misconfigured: file "platform\.1\.key" does not belong to the server's user/, 'but not to what is another user\'s');
	unlink $file;
}
append_to_file($server->data_dir . '/platform.key', 'x' x 32);
chmod 0600, $server->data_dir . '/platform.key';
symlink $server->data_dir . '/platform.key', $file;
like(check(), qr/^misconfigured: .*data directory/, 'nor into the data directory');
unlink $file;
rename "$keks/away", $file or die;

# The newest version wraps, all unwrap.
make_kek($keks, 'other');
rename "$keks/other.1.key", "$keks/platform.12.key" or die;
is($server->safe_psql('postgres', q{SELECT envelope_create_tenant('t3') > 0; SELECT DISTINCT kek_version FROM envelope.tenant_keys WHERE tenant_id = 't3'}),
	"t\n12", 'the file with the highest number wraps');
is(open_value(), 'value 7', 'the others still unwrap');
is($server->safe_psql('postgres', q{SELECT keys_by_version FROM envelope.status WHERE kek = 'platform'}), '{"1": 4, "12": 2}', 'status counts keys by version');

# Directories
sub with_directory
{
	my ($directory) = @_;
	$server->append_conf('postgresql.conf', "envelope.local_kek_directory = '$directory'\n");
	$server->reload;
	my $seen = '';
	eventually(sub { $seen = check(); $seen !~ /^ok/ });
	return $seen;
}
like(with_directory(''), qr/^misconfigured: .*is not set/, 'no directory');
like(with_directory('relative'), qr/^misconfigured: .*not an absolute path/, 'a relative one');
like(with_directory('/nonexistent'), qr/^misconfigured: .*could not look at/, 'one that is not there');
chmod 0755, $keks;
like(with_directory($keks), qr/^misconfigured: .*mode 0700/, 'one that is open to others');
chmod 0700, $keks;
mkdir $server->data_dir . '/keks', 0700;
like(with_directory($server->data_dir . '/keks'), qr/^misconfigured: .*data directory/, 'one that backups would hold');
rmdir $server->data_dir . '/keks';
$server->append_conf('postgresql.conf', "envelope.local_kek_directory = '$keks'\n");
$server->reload;
ok(eventually(sub { check() =~ /^ok/ }), 'a good one is used at once');
is(open_value(), 'value 7', 'and all opens again');

$server->stop;
done_testing();
