# Dumps are made and restored without any KMS, and give back everything to a
# server that has one; to one that has none, nothing.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('origin');
$server->safe_psql('postgres', q{
	CREATE ROLE app LOGIN; CREATE ROLE keeper LOGIN; CREATE DATABASE shop;
});
$server->safe_psql('shop', q{
	CREATE EXTENSION envelope;
	SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
	SELECT envelope_create_tenants(array['t1', 't2', 'Zürich']);
	SELECT envelope_grant('app', 'use'), envelope_grant('keeper', 'admin');
	CREATE TABLE sealed (g int PRIMARY KEY, tenant text, v bytea CHECK (envelope_is_sealed(v)), note text,
		key_id bigint GENERATED ALWAYS AS (envelope_key_id(v)) STORED);
	INSERT INTO sealed SELECT g, t, envelope_encrypt(t, 'value ' || g, 'c'), 'note ' || g
		FROM generate_series(1, 300) g, LATERAL (SELECT (array['t1', 't2', 'Zürich'])[1 + g % 3]) s (t);
	CREATE INDEX by_key ON sealed (envelope_key_id(v));
	GRANT SELECT ON sealed TO app;
	SELECT envelope_suspend_tenant('t2');
});

my $all = q{SELECT count(*) FROM sealed WHERE envelope_decrypt(tenant, v, 'c') = 'value ' || g AND key_id = envelope_key_id(v)};
my $folder = PostgreSQL::Test::Utils::tempdir;

# Without a KMS
set_faults($server, 'platform:denied');
$server->safe_psql('shop', 'SELECT envelope_evict_all()');
$server->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/custom", 'shop' ], 'pg_dump needs no KMS');
$server->command_ok([ 'pg_dump', '-f', "$folder/plain", 'shop' ], 'in plain format neither');
$server->command_ok([ 'pg_dump', '-Fd', '-j2', '-f', "$folder/directory", 'shop' ], 'in directory format neither');
$server->command_ok([ 'pg_dump', '--inserts', '-f', "$folder/inserts", 'shop' ], 'with --inserts neither');
$server->command_ok([ 'pg_dumpall', '--globals-only', '-f', "$folder/globals" ], 'the roles');
set_faults($server, '');
unlike(slurp_file("$folder/plain"), qr/value \d/, 'the dump holds nothing open');

# Into another cluster that has the KEK, in every way
my $target = PostgreSQL::Test::Cluster->new('target');
$target->init;
$target->append_conf('postgresql.conf', "shared_preload_libraries = 'envelope'\nenvelope.local_kek_directory = '$server->{keks}'\n");
$target->start;
$target->{keks} = $server->{keks};
$target->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE keeper LOGIN');

# check_restored DATABASE WHAT: everything is as it was.
sub check_restored
{
	my ($database, $what) = @_;
	my $query = sub { return $target->safe_psql($database, $_[0]) };
	is($query->(q{SET envelope.unreadable = 'null'; SET client_min_messages = error; } . $all), 200, "$what: opens, but for whom it is suspended");
	is($query->(q{SELECT envelope_resume_tenant('t2'); } . $all), "\n300", "$what: resumed, everything opens");
	is($query->(q{SELECT count(*) >= 6, bool_and(tgenabled = 'A') FROM pg_trigger WHERE tgname LIKE 'guard%'}), 't|t', "$what: every guard is ALWAYS");
	is($query->(q{SELECT count(*) FROM envelope_doctor() WHERE subject NOT LIKE 'setting%'}), 0, "$what: doctor is content");
	is($query->(q{SELECT envelope_create_tenant('new') > 0}), 't', "$what: a new tenant can be made");
	return;
}
for my $way ([ 'custom' ], [ 'custom', '-j2' ], [ 'directory', '-j2' ])
{
	my ($dump, @options) = @$way;
	my $what = join(' ', @$way);
	$target->safe_psql('postgres', 'CREATE DATABASE restored');
	$target->command_ok([ 'pg_restore', '-d', 'restored', @options, "$folder/$dump" ], "$what: restored");
	check_restored('restored', $what);
	is($target->safe_psql('restored', q{SELECT has_function_privilege('app', 'envelope_decrypt(text, bytea, text)', 'EXECUTE'), has_function_privilege('app', 'envelope_evict_all()', 'EXECUTE'), has_function_privilege('keeper', 'envelope_create_tenant(text, text)', 'EXECUTE')}),
		't|f|t', "$what: what was granted is granted");
	$target->safe_psql('postgres', 'DROP DATABASE restored');
}
for my $dump ('plain', 'inserts')
{
	$target->safe_psql('postgres', 'CREATE DATABASE restored');
	$target->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-o', '/dev/null', '-f', "$folder/$dump" ], "$dump: restored");
	check_restored('restored', $dump);
	$target->safe_psql('postgres', 'DROP DATABASE restored');
}

# Schema first, then the data with triggers disabled
$target->safe_psql('postgres', 'CREATE DATABASE restored');
$target->command_ok([ 'pg_restore', '-d', 'restored', '--schema-only', "$folder/custom" ], 'the schema alone');
$target->command_ok([ 'pg_restore', '-d', 'restored', '--data-only', '--disable-triggers', "$folder/custom" ], 'the data with --disable-triggers');
check_restored('restored', '--disable-triggers');
$target->safe_psql('postgres', 'DROP DATABASE restored');

# By somebody who is no superuser, where a superuser has made the extension: the
# keys, but not what only the owner may write, the history of requests and deeds.
$target->safe_psql('postgres', 'CREATE DATABASE restored OWNER keeper');
$target->safe_psql('restored', q{CREATE EXTENSION envelope; SELECT envelope_grant('keeper', 'admin'); SELECT envelope_grant('keeper', 'use'); GRANT CREATE ON SCHEMA public TO keeper});
my ($list) = run_command([ 'pg_restore', '-l', "$folder/custom" ]);
append_to_file("$folder/list", join("\n", grep { !/EXTENSION|ACL/ && !(/(?:TABLE DATA|SEQUENCE SET) envelope (\w+)/ && $1 !~ /^(?:keks|tenants|tenant_keys)$/) } split /\n/, $list) . "\n");
$target->command_ok([ 'pg_restore', '-U', 'keeper', '-d', 'restored', '--no-owner', '--exit-on-error', '-L', "$folder/list", "$folder/custom" ],
	'the holder of admin restores');
check_restored('restored', 'by the holder of admin');
$target->safe_psql('postgres', 'DROP DATABASE restored');

# Without the KEK: all is there, and nothing opens.
my $file = "$server->{keks}/platform.1.key";
rename $file, "$server->{keks}/away" or die;
$target->safe_psql('postgres', 'CREATE DATABASE restored');
$target->command_ok([ 'pg_restore', '-d', 'restored', "$folder/custom" ], 'restored without the KEK');
is(sqlstate_in('restored', q{SELECT count(*) FROM sealed}), 300, 'every row is there');
is(sqlstate_in('restored', q{SELECT envelope_decrypt(tenant, v, 'c') FROM sealed WHERE tenant = 't1' LIMIT 1}), 'VE002', 'and none opens');
rename "$server->{keks}/away", $file or die;
$target->safe_psql('restored', q{SELECT * FROM envelope_check_kek('platform')});
check_restored('restored', 'the KEK given later');
$target->safe_psql('postgres', 'DROP DATABASE restored');

sub sqlstate_in
{
	my ($database, $sql) = @_;
	my (undef, $out, $err) = $target->psql($database, "\\set VERBOSITY sqlstate\n$sql");
	return $err =~ /(?:ERROR|FATAL):\s+(\w{5})\b/ ? $1 : $out;
}

# A value restored without its keys says that its key is not here.
$target->safe_psql('postgres', 'CREATE DATABASE restored');
$target->safe_psql('restored', q{CREATE EXTENSION envelope; SELECT envelope_create_kek('platform', 'local://platform', is_default => true); SELECT envelope_create_tenant('t1')});
$target->command_ok([ 'pg_restore', '-d', 'restored', '-t', 'sealed', "$folder/custom" ], 'one table restored alone');
is(sqlstate_in('restored', q{SELECT envelope_decrypt('t1', v, 'c') FROM sealed WHERE tenant = 't1' LIMIT 1}), 'VE009', 'its keys are elsewhere');
$target->safe_psql('postgres', 'DROP DATABASE restored');

# An index over a keyed function needs the key tables first: two steps.
$server->safe_psql('shop', q{SELECT envelope_resume_tenant('t2');
	CREATE INDEX by_term ON sealed (envelope_blind_index(tenant, note, 'note'));
	CREATE TABLE generated (tenant text, note text, term bytea GENERATED ALWAYS AS (envelope_blind_index(tenant, note, 'note')) STORED,
		same bytea GENERATED ALWAYS AS (envelope_encrypt_deterministic(tenant, note, 'note')) STORED);
	INSERT INTO generated SELECT tenant, note FROM sealed});
$server->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/indexed", 'shop' ], 'a dump with an index over a keyed function');
for my $encoding ('UTF8', 'LATIN1')
{
	$target->safe_psql('postgres', "CREATE DATABASE restored TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	$target->command_ok([ 'pg_restore', '-d', 'restored', '--section=pre-data', "$folder/indexed" ], "$encoding: the definitions");
	my ($contents) = run_command([ 'pg_restore', '-l', "$folder/indexed" ]);
	my $keys_list = "$folder/keys_$encoding";
	append_to_file($keys_list, join("\n", grep { /TABLE DATA envelope / } split /\n/, $contents) . "\n");
	my $rest_list = "$folder/rest_$encoding";
	append_to_file($rest_list, join("\n", grep { /TABLE DATA / && !/TABLE DATA envelope / } split /\n/, $contents) . "\n");
	$target->command_ok([ 'pg_restore', '-d', 'restored', '--exit-on-error', '-L', $keys_list, "$folder/indexed" ], "$encoding: first the keys");
	$target->command_ok([ 'pg_restore', '-d', 'restored', '--exit-on-error', '-L', $rest_list, "$folder/indexed" ], "$encoding: then the data");
	$target->command_ok([ 'pg_restore', '-d', 'restored', '--exit-on-error', '--section=post-data', "$folder/indexed" ], "$encoding: then the indexes");
	is(sqlstate_in('restored', $all), 300, "$encoding: everything opens");
	is(sqlstate_in('restored', q{SET enable_seqscan = off; SELECT count(*) FROM sealed WHERE envelope_blind_index(tenant, note, 'note') = envelope_blind_index('t1', 'note 3', 'note')}), 1, "$encoding: the index finds");
	is(sqlstate_in('restored', q{SELECT count(*) FROM generated WHERE term = envelope_blind_index(tenant, note, 'note') AND envelope_decrypt(tenant, same, 'note') = note}), 300,
		"$encoding: generated columns are right");
	$target->safe_psql('postgres', 'DROP DATABASE restored');
}

$_->stop for $server, $target;
done_testing();
