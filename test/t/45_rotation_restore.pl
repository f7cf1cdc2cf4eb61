# Backups from before a rotation, restored after the old key has died: what opens
# is what docs/rotation.md says, and what it says is done with the rest works.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('app');
my $keks = PostgreSQL::Test::Utils::tempdir;
chmod 0700, $keks;
make_kek($keks, $_) for 'platform', 'probe';
$server->{keks} = $keks;
$server->init(allows_streaming => 1, has_archiving => 1);
$server->append_conf('postgresql.conf', "shared_preload_libraries = 'envelope'\nenvelope.local_kek_directory = '$keks'\n");
$server->start;
$server->safe_psql('postgres', 'CREATE DATABASE app');
$server->safe_psql('app', q{
	CREATE EXTENSION envelope;
	SELECT envelope_create_kek('platform', 'local://platform', is_default => true), envelope_create_kek('next', 'local://probe');
	SELECT envelope_create_tenants(array['acme', 'other']);
	CREATE TABLE customers (id int PRIMARY KEY, tenant_id text NOT NULL, email text, UNIQUE (tenant_id, email));
	SELECT envelope_protect('customers', 'tenant_id', '{email}', '{email}');
	CREATE INDEX customers_key ON customers (envelope_key_id(email__sealed));
	CREATE TABLE docs (id int PRIMARY KEY, tenant_id text NOT NULL, body bytea);
	SELECT envelope_register_column('docs', 'body', 'tenant_id', 'docs.body');
	INSERT INTO customers SELECT g, CASE WHEN g % 2 = 1 THEN 'acme' ELSE 'other' END, 'c' || g FROM generate_series(1, 200) g;
	INSERT INTO docs SELECT id, tenant_id, envelope_encrypt(tenant_id, 'd' || id, 'docs.body') FROM customers;
	CREATE VIEW everything AS SELECT id, tenant_id, email AS opened, 'c' || id AS plain FROM customers
		UNION ALL SELECT id, tenant_id, envelope_decrypt(tenant_id, body, 'docs.body'), 'd' || id FROM docs});
my $wrong = q{SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain), count(*) FROM everything};

# outcome DATABASE SQL [NODE]: the SQLSTATE that SQL ends in, or its output.
sub outcome
{
	my ($database, $sql, $node) = @_;
	my (undef, $out, $err) = ($node // $server)->psql($database, "\\set VERBOSITY sqlstate\n$sql");
	return $err =~ /(?:ERROR|FATAL):\s+(\w{5})\b/ ? $1 : $out;
}

# Backups of each kind, and then a rotation, after which the old key dies.
my $folder = PostgreSQL::Test::Utils::tempdir;
$server->backup('before');
$server->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/before", '-d', $server->connstr('app') ], 'a dump');
$server->safe_psql('app', q{CREATE TABLE put_aside AS SELECT encode(body, 'hex') AS hex FROM docs WHERE id = 1});
$server->safe_psql('app', q{CALL envelope_rotate_tenant('acme')});
$server->safe_psql('app', q{SELECT pg_create_restore_point('rotated')});
$server->safe_psql('app', q{CALL envelope_destroy_retired_keys('acme')});
$server->safe_psql('app', q{
	INSERT INTO customers VALUES (1001, 'acme', 'c1001');
	INSERT INTO docs VALUES (1001, 'acme', envelope_encrypt('acme', 'd1001', 'docs.body'))});
my $segment = $server->safe_psql('app', 'SELECT pg_walfile_name(pg_switch_wal())');
ok(eventually(sub { $server->safe_psql('app', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver") eq 't' }), 'the WAL is archived');
my $aside = q{SELECT envelope_decrypt('acme', decode(hex, 'hex'), 'docs.body') IS NOT NULL FROM put_aside};
is(outcome('app', $wrong), '0|402', 'all data opens with the new key');
is(outcome('app', $aside), 'VE005', 'the old key opens nothing any more');

# Restored whole: nothing is to be done.
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($server, 'before');
$copy->append_conf('postgresql.conf', "archive_mode = off\n");
$copy->start;
is(outcome('app', $wrong, $copy), '0|400', 'pg_basebackup: restored whole, everything opens');
is(outcome('app', q{SELECT string_agg(state, ' ') FROM envelope.tenant_keys WHERE tenant_id = 'acme' AND purpose = 'data'}, $copy), 'active', 'the key that was active then is active again');
is(outcome('app', q{CALL envelope_rotate_tenant('acme')}, $copy), '', 'and can be rotated anew');
is(outcome('app', $wrong, $copy), '0|400', 'with everything open');
$copy->stop;
for my $at ([ 'the point between rotation and death', "recovery_target_name = 'rotated'", '0|400', 't' ], [ 'the end of the archive', '', '0|402', 'VE005' ])
{
	my ($what, $target, $values, $old) = @$at;
	my $later = PostgreSQL::Test::Cluster->new($target ? 'point' : 'last');
	$later->init_from_backup($server, 'before', has_restoring => 1, standby => 0);
	$later->append_conf('postgresql.conf', "$target\nrecovery_target_action = 'promote'\narchive_mode = off\n");
	$later->start;
	eventually(sub { outcome('app', 'SELECT pg_is_in_recovery()', $later) eq 'f' });
	is(outcome('app', $wrong, $later), $values, "recovered to $what: everything opens");
	is(outcome('app', $aside, $later), $old, "recovered to $what: and the old key is what it was then");
	$later->stop;
}
$server->safe_psql('postgres', 'CREATE DATABASE old');
$server->command_ok([ 'pg_restore', '-d', $server->connstr('old'), "$folder/before" ], 'pg_dump: restored into a database of its own');
is(outcome('old', $wrong), '0|400', 'everything opens there');
is(outcome('app', $wrong), '0|402', 'as it does in the other');

# Some tables alone, into the database that has moved on and lost some rows: what
# is sealed under the key that has died is not stored where a column is protected
# or registered, and does not open elsewhere.
$server->safe_psql('app', q{DELETE FROM customers WHERE tenant_id = 'acme' AND id < 1000; DELETE FROM docs WHERE tenant_id = 'acme' AND id < 1000});
for my $table ('customers', 'docs')
{
	$server->command_fails_like([ 'pg_restore', '-d', $server->connstr('app'), '--data-only', '-t', $table, "$folder/before" ],
		qr/nothing can be stored under key \d+ any more/, "$table alone: refused");
	is(outcome('app', "SELECT count(*) FROM $table WHERE tenant_id = 'acme'"), 1, "$table alone: nothing is stored");
}
$server->safe_psql('postgres', 'CREATE DATABASE never');
$server->safe_psql('never', q{
	CREATE EXTENSION envelope;
	SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
	SELECT envelope_create_tenant('acme')});
for my $database ('app', 'never')
{
	$server->safe_psql($database, 'CREATE TABLE docs_before (id int, tenant_id text, body bytea)');
	run_shell("psql -X -d old -c 'COPY docs TO STDOUT' | psql -X -d $database -c 'COPY docs_before FROM STDIN'", "into a table of another name, in $database");
	is(outcome($database, q{SELECT count(*) FROM docs_before}), 200, 'it is stored');
}
my $before = q{SELECT count(envelope_decrypt(tenant_id, body, 'docs.body')) FROM docs_before WHERE tenant_id =};
is(outcome('app', "$before 'acme'"), 'VE005', 'under the key that has died it does not open');
is(outcome('app', "$before 'other'"), 100, 'of the tenant whose key lives it does');
is(outcome('never', "$before 'acme'"), 'VE009', 'where its key never was it does not open either');
is(outcome('never', "$before 'other'"), 'VE001', 'nor where its tenant never was');

# run_shell COMMANDS WHAT: as the reader of the runbook would type them.
sub run_shell
{
	my ($commands, $what) = @_;
	local %ENV = (%ENV, PGHOST => $server->host, PGPORT => $server->port);
	my $out = '';
	ok(IPC::Run::run([ 'bash', '-euo', 'pipefail', '-c', $commands ], '<', '/dev/null', '>', \$out, '2>&1'), $what) or diag($out);
	return;
}

# What the runbook says: the rows go over open, by a pipe, and are sealed as they
# arrive.
my $page = slurp_file("$ENV{TEST_ROOT}/docs/rotation.md");
my ($section) = $page =~ /^## Restoring a backup from before a rotation\n(.*?)(?=^## )/ms;
my @blocks = $section =~ /^```sh\n(.*?)^```$/msg;
is(scalar(@blocks), 1, 'the runbook has its commands');
run_shell($blocks[0], 'which work');
is(outcome('app', q{SELECT count(*), count(*) FILTER (WHERE opened IS DISTINCT FROM plain) FROM everything WHERE tenant_id = 'acme' AND id < 1000}), '200|0', 'every row is back, and opens');
is(outcome('app', q{SET envelope.stored_form = on; SELECT count(*) FROM (SELECT email__sealed AS v FROM customers UNION ALL SELECT body FROM docs) s
	JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(v) WHERE k.state <> 'active'}), 0, 'under the key of now');
is(outcome('app', q{SELECT sum(failures) FROM envelope_verify_tenant('acme')}), 0, 'verify agrees');

# From before the KEK changed: it takes the old one.
$server->safe_psql('app', q{CALL envelope_rotate_kek('platform', 'next')});
rename "$keks/platform.1.key", "$keks/away" or die;
$server->safe_psql('app', 'SELECT envelope_evict_all()');
$server->safe_psql('old', 'SELECT envelope_evict_all()');
is(outcome('app', q{SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain) FROM everything}), 0, 'without the old KEK all opens here');
is(outcome('old', $wrong), 'VE002', 'and nothing of the backup');
rename "$keks/away", "$keks/platform.1.key" or die;
$server->safe_psql('old', q{SELECT * FROM envelope_check_kek('platform')});
ok(eventually(sub { outcome('old', $wrong) eq '0|400' }), 'until it is back');

# A tenant whose index key has leaked is moved to another id, as the guide says.
my ($compromise) = $page =~ /^## Suspected compromise of a tenant\n(.*?)(?=^## )/ms;
my ($move) = grep { /envelope_create_tenant/ } $compromise =~ /^```sql\n(.*?)^```$/msg;
my $terms = q{SET envelope.stored_form = on; SELECT email__term FROM customers WHERE id = 1};
my $term = outcome('old', $terms);
$server->safe_psql('old', $move);
is(outcome('old', q{SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain), count(*) FROM everything WHERE tenant_id = 'acme-2'}), '0|200', 'all values of a tenant that is moved open under its new id');
isnt(outcome('old', $terms), $term, 'terms are others');
is(outcome('old', q{SELECT id FROM customers WHERE tenant_id = 'acme-2' AND email = 'c1'}), 1, 'by which is found');
is(outcome('old', q{SELECT state FROM envelope.tenants WHERE tenant_id = 'acme'}), 'scheduled', 'the old id is on its way out');
is(outcome('old', q{SELECT loss FROM envelope.destroy_requests}), '[]', 'with nothing to lose');

# A tenant that was destroyed is back with an old backup, until it is destroyed
# there too.
$server->safe_psql('postgres', 'CREATE ROLE second SUPERUSER LOGIN');
$server->safe_psql('app', q{SELECT count(*) FROM envelope_schedule_destroy('other', '7 days')});
$server->safe_psql('app', q{SELECT envelope_approve_destroy('other')}, extra_params => [ '-U', 'second' ]);
$server->safe_psql('app', q{UPDATE envelope.destroy_requests SET destroy_after = now()});
$server->safe_psql('app', q{CALL envelope_run_maintenance()});
is(outcome('app', q{SELECT count(opened) FROM everything WHERE tenant_id = 'other'}), 'VE005', 'a tenant is destroyed');
is(outcome('app', q{SELECT tenant_id FROM envelope.destroy_requests WHERE outcome = 'destroyed'}), 'other', 'which is on the list');
is(outcome('old', q{SELECT count(opened) FROM everything WHERE tenant_id = 'other'}), 200, 'in the backup it is there');

# Data restored with --disable-triggers: the guards fire always afterwards.
$server->safe_psql('postgres', 'CREATE DATABASE disabled');
$server->command_ok([ 'pg_restore', '-d', $server->connstr('disabled'), '--schema-only', "$folder/before" ], 'the definitions');
$server->command_ok([ 'pg_restore', '-d', $server->connstr('disabled'), '--data-only', '--disable-triggers', "$folder/before" ], 'the data, with triggers disabled');
is(outcome('disabled', q{SELECT count(*), string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger WHERE tgfoid IN ('envelope.seal_guard'::regproc, 'envelope.seal'::regproc)}), '2|A', 'every guard fires always');
is(outcome('disabled', q{SELECT count(*) FROM envelope_doctor() WHERE subject LIKE 'table%'}), 0, 'doctor has nothing to say of them');
is(outcome('disabled', $wrong), '0|400', 'and everything opens');

$server->safe_psql('app', 'SELECT envelope_evict_all()');
$server->restart;
is(outcome('app', q{SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain) FROM everything WHERE tenant_id = 'acme'}), 0, 'evicted and restarted, all that was not destroyed opens');
$server->stop;
done_testing();
