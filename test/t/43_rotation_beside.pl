# Rotation beside what else happens to a database: a KMS that fails in the midst,
# backups, promotion of a standby, owners with policies and triggers, and one bad
# key among many.

use strict;
use warnings;
use Envelope;
use Rotation;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('beside', 'max_prepared_transactions = 5');
make_tables($server, 3000);
my $psql = sub { return sqlstate($server, @_) };

# The KMS fails before, and in the midst.
set_faults($server, 'platform:unreachable');
is($psql->(q{SET envelope.kms_timeout = '1s'; CALL envelope_rotate_tenant('t1')}), 'VE003', 'without a KMS there is no new key');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenant_keys WHERE state <> 'active'}), 0, 'and the old one does not retire');
set_faults($server, '');
my $rotator = Envelope::Session->new($server);
$rotator->query(q{SET envelope.kms_timeout = '1s'});
$rotator->send(q{CALL envelope_rotate_tenant('t1', 10, '10 ms')});
ok(eventually(sub { $server->safe_psql('postgres', q{SELECT rows_reencrypted > 0 FROM envelope.rotation_progress}) eq 't' }), 'it is under way');
is($server->safe_psql('postgres', q{SELECT phase || ' ' || running FROM envelope.rotation_progress}), 'reencrypt true', 'as the view shows');
is($psql->(q{CALL envelope_rotate_tenant('t1')}), '55006', 'a second rotation of the tenant says so');
is($psql->(q{SELECT rotate_tenant_dek('t1')}), '55006', 'in a transaction too');
is($psql->(q{CALL envelope_rotate_tenant('7')}), '', 'one of another tenant finishes beside it');
set_faults($server, 'platform:unreachable');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
is($rotator->wait, 'VE003', 'the KMS fails in the midst');
is($server->safe_psql('postgres', q{SELECT phase || ' ' || running FROM envelope.rotation_progress}), 'reencrypt false', 'the rotation is not forgotten');
set_faults($server, '');
is(wrong_values($server), 0, 'values under both keys open');
my $keys = $server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenant_keys WHERE tenant_id = 't1'});
is($psql->(q{CALL envelope_rotate_tenant('t1')}), '', 'called again it finishes');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenant_keys WHERE tenant_id = 't1'}), $keys, 'without another key');
is(rows_under($server, 't1'), 0, 'with no value under the old one');

# A rotation that is rolled back, and the next.
$server->safe_psql('postgres', q{BEGIN; SELECT rotate_tenant_dek('t1'); ROLLBACK});
is(rows_under($server, 't1'), 0, 'rolled back, it leaves everything as it was');
is(wrong_values($server), 0, 'readable');
like($psql->(q{SELECT rotate_tenant_dek('t1')}), qr/^\d+$/, 'the next one is fine');
is(wrong_values($server), 0, 'and all is readable');
is($psql->(q{BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT rotate_tenant_dek('t1')}), '0A000', 'not in SERIALIZABLE');
is($psql->(q{SET default_transaction_isolation = serializable; CALL envelope_rotate_tenant('t1')}), '0A000', 'nor live');
is($psql->(q{SET default_transaction_isolation = 'repeatable read'; CALL envelope_rotate_tenant('t1', 500)}), '', 'a default of REPEATABLE READ does not matter');
is($psql->(q{BEGIN; CALL envelope_rotate_tenant('t1')}), '2D000', 'not in a transaction block');

# A table that is made while the others are looked at for a key that is to die, by
# whoever moves values to it, is looked at too.
$server->safe_psql('postgres', q{
	CREATE TABLE looked_at (body bytea);
	CREATE TABLE saved AS SELECT encode(envelope_encrypt('7', 'saved'), 'hex') AS body;
	SELECT rotate_tenant_dek('7')});
my ($holder, $locker, $death) = map { Envelope::Session->new($server) } 1 .. 3;
$holder->query('BEGIN; SELECT 1');
$death->send(q{CALL envelope_destroy_retired_keys('7')});
ok(eventually(sub { $server->safe_psql('postgres', q{SELECT count(*) FROM envelope.rotation_progress WHERE kind = 'death' AND waits_for IS NOT NULL}) }), 'a death waits');
$locker->query('BEGIN; LOCK TABLE looked_at');
$holder->query('COMMIT');
ok(eventually(sub { $server->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE relation = 'looked_at'::regclass AND NOT granted}) }), 'and looks at the tables');
$server->safe_psql('postgres', q{CREATE TABLE moved_to AS SELECT decode(body, 'hex') AS body FROM saved});
$locker->query('COMMIT');
is($death->wait, '', 'it ends');
is($psql->(q{SELECT envelope_decrypt('7', body) FROM moved_to}), 'saved', 'and has spared the key of what was moved meanwhile');
$_->quit for $holder, $locker, $death;
$server->safe_psql('postgres', q{DROP TABLE looked_at, saved, moved_to});

# Owners that are bound by policies, and triggers.
$server->safe_psql('postgres', q{
	CREATE ROLE owner; GRANT CREATE ON SCHEMA public TO owner;
	CREATE TABLE fired (name text, who text);
	GRANT ALL ON fired TO owner;
	SELECT envelope_grant('owner', 'use');
	CREATE FUNCTION context_of(kind text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.fired VALUES ('context', current_user);
		RETURN 'own.' || kind;
	END$$;
	SET ROLE owner;
	CREATE TABLE own (id int PRIMARY KEY, tenant_id text, kind text, body bytea, plain text);
	CREATE TABLE child (id int REFERENCES own ON UPDATE CASCADE);
	ALTER TABLE own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY nobody ON own USING (current_setting('app.open', true) = 'yes');
	SET app.open = 'yes';
	INSERT INTO own SELECT g, 't2', 'k', envelope_encrypt('t2', 'own ' || g, 'own.k'), 'own ' || g FROM generate_series(1, 100) g;
	INSERT INTO child SELECT id FROM own;
	CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.fired VALUES (TG_NAME, current_user); RETURN new; END$$;
	CREATE TRIGGER ordinary AFTER UPDATE ON own FOR EACH ROW EXECUTE FUNCTION fire();
	CREATE TRIGGER always BEFORE UPDATE ON own FOR EACH ROW WHEN (new.id = 1) EXECUTE FUNCTION fire();
	ALTER TABLE own ENABLE ALWAYS TRIGGER always;
	RESET ROLE;
	CREATE ROLE other;
	SELECT envelope_grant('other', 'admin');
});
is($psql->(q{SET ROLE other; SELECT envelope_register_column('own', 'body', 'tenant_id', 'x')}), '42501', 'only its owner registers a table');
# What an expression does it does as the owner, and that is not much.
$server->safe_psql('postgres', q{SET SESSION AUTHORIZATION owner; RESET SESSION AUTHORIZATION;
	SELECT envelope_register_column('own', 'body', 'tenant_id', context_expression => 'context_of(kind)')});
$server->safe_psql('postgres', 'TRUNCATE fired');
my ($rc, $out, $err) = $server->psql('postgres', q{CALL envelope_rotate_tenant('t2')});
is($rc, 0, 'a table with FORCE ROW LEVEL SECURITY is rotated');
like($err, qr/NOTICE:  trigger "always" of table public.own fires/, 'the trigger that fires is named');
is($server->safe_psql('postgres', q{SELECT string_agg(DISTINCT name || ' ' || who, ', ') FROM fired}), 'always owner, context owner', 'nothing else fires, and all as the owner');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenant_keys k JOIN own ON envelope_key_id(body) = k.key_id WHERE k.state = 'active' AND envelope_decrypt('t2', body, 'own.k') = plain}), 100, 'every row of it');
is($server->safe_psql('postgres', q{SELECT failures FROM envelope_verify_tenant('t2') WHERE table_name = 'public.own'}), 0, 'verify agrees');

# A value that does not open is named, and keeps nothing else.
$server->safe_psql('postgres', q{UPDATE own SET body = set_byte(body, 30, 1 + get_byte(body, 30) % 255) WHERE id = 5});
($rc, $out, $err) = $server->psql('postgres', q{CALL envelope_rotate_tenant('t2')});
like($err, qr/ERROR:  1 values under retired keys cannot be opened\nDETAIL:  The first is in public\.own\.body, ctid/, 'a value that is damaged is named');
is($server->safe_psql('postgres', q{SELECT failures || ' ' || sqlstate FROM envelope_verify_tenant('t2') WHERE failures > 0}), '1 VE004', 'by verify too');
$server->safe_psql('postgres', q{DELETE FROM child WHERE id = 5; SET app.open = 'yes'; DELETE FROM own WHERE id = 5});
is($psql->(q{CALL envelope_rotate_tenant('t2')}), '', 'without it the rotation finishes');

# What the owner's expression throws is theirs to see, whatever SQLSTATE it has.
my $context_of = $server->safe_psql('postgres', q{SELECT pg_get_functiondef('context_of'::regproc)});
$server->safe_psql('postgres', q{CREATE OR REPLACE FUNCTION context_of(kind text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'by the expression' USING ERRCODE = 'VE004';
	END$$});
($rc, $out, $err) = $server->psql('postgres', q{CALL envelope_rotate_tenant('t2')});
like($err, qr/ERROR:  by the expression/, 'an error of an expression over the row ends the rotation');
unlike($err, qr/WARNING/, 'and leaves nothing behind');
$server->safe_psql('postgres', $context_of);
is($psql->(q{CALL envelope_rotate_tenant('t2')}), '', 'called again it finishes');

# In a pass with others, what is wrong with one tenant holds up none of them,
# be it a value or a key.
$server->safe_psql('postgres', q{SET app.open = 'yes';
	UPDATE own SET body = set_byte(body, 30, 1 + get_byte(body, 30) % 255) WHERE id = 6;
	SELECT envelope_set_rotation_interval(t, '1 ms') FROM unnest(array['t1', 't2']) t});
my $outcome = q{SELECT string_agg(tenant_id || ' ' || phase || ' ' || (error IS NOT NULL), ', ' ORDER BY tenant_id)
	FROM (SELECT DISTINCT ON (tenant_id) * FROM envelope.rotations WHERE tenant_id IN ('t1', 't2') ORDER BY tenant_id, rotation_id DESC) r};
($rc, $out, $err) = $server->psql('postgres', 'CALL envelope_run_maintenance()');
like($err, qr/WARNING:  the rotation of tenant "t2" could not be finished\nDETAIL:  1 values under retired keys cannot be opened, the first in public\.own\.body/, 'maintenance names a tenant with a damaged value');
is($server->safe_psql('postgres', $outcome), 't1 proven false, t2 reencrypt true', 'and proves the other');
$server->safe_psql('postgres', q{SET app.open = 'yes'; DELETE FROM child WHERE id = 6; DELETE FROM own WHERE id = 6});
$server->safe_psql('postgres', 'CALL envelope_run_maintenance()');
is($server->safe_psql('postgres', $outcome), 't1 proven false, t2 proven false', 'without it both are proven');
$server->safe_psql('postgres', q{SELECT envelope_set_rotation_interval(t, NULL) FROM unnest(array['t1', 't2']) t});

# A column that is renamed is followed; one that lost its guard is not left out
# in silence.
$server->safe_psql('postgres', q{ALTER TABLE own RENAME TO owned; ALTER TABLE owned RENAME body TO content; ALTER TABLE owned RENAME kind TO sort; ALTER TABLE owned RENAME tenant_id TO customer});
is($psql->(q{CALL envelope_rotate_tenant('t2')}), '', 'a table and columns that were renamed are followed');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenant_keys k JOIN owned ON envelope_key_id(content) = k.key_id WHERE k.state = 'active'}), 98, 'every row of it');
is($psql->(q{ALTER TABLE owned DROP COLUMN content}), '2BP01', 'a registered column is not dropped on the way');
$server->safe_psql('postgres', q{ALTER TABLE owned RENAME TO own; DO $$ BEGIN EXECUTE (SELECT format('DROP TRIGGER %I ON own', tgname) FROM pg_trigger WHERE tgrelid = 'own'::regclass AND tgname LIKE 'zzz_envelope%'); END $$});
is($psql->(q{CALL envelope_rotate_tenant('t2')}), '55000', 'a column that lost its guard stops the rotation');
$server->safe_psql('postgres', q{DROP TABLE own CASCADE});
is($psql->(q{CALL envelope_rotate_tenant('t2')}), '', 'a table that has gone does not');

# A backup is taken while both kinds of key rotate.
make_kek($server->{keks}, 'eu');
$server->safe_psql('postgres', q{SELECT envelope_create_kek('eu', 'local://eu')});
$rotator = Envelope::Session->new($server);
$rotator->send(q{CALL envelope_rotate_tenant('t1', 10, '5 ms')});
eventually(sub { $server->safe_psql('postgres', q{SELECT rows_reencrypted > 0 FROM envelope.rotation_progress}) eq 't' });
$server->backup('midway');
$server->command_ok([ 'pg_dump', '-Fc', '-f', "$server->{keks}/dump", '-d', $server->connstr('postgres') ], 'a dump while a key rotates');
is($psql->(q{CALL envelope_rotate_kek('platform', 'eu')}), '', 'a KEK is rotated meanwhile');
is($rotator->wait, '', 'the rotation ends');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($server, 'midway');
$copy->start;
is(wrong_values($copy), 0, 'the backup reads everything');
is(sqlstate($copy, q{CALL envelope_rotate_tenant('t1')}), '', 'and finishes the rotation');
is(finish_suite($copy), 0, 'of which nothing is lost');
$copy->stop;
$server->safe_psql('postgres', 'CREATE DATABASE restored');
$server->command_ok([ 'pg_restore', '-d', $server->connstr('restored'), "$server->{keks}/dump" ], 'the dump is restored');
is($server->safe_psql('restored', 'SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain) FROM everything'), 0, 'and reads everything');
$server->safe_psql('postgres', 'DROP DATABASE restored');

# A standby is promoted in the midst.
$server->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($server, 'standby', has_streaming => 1);
$standby->start;
is(sqlstate($standby, q{CALL envelope_rotate_tenant('t1')}), '25006', 'a standby rotates nothing');
$rotator->send(q{CALL envelope_rotate_tenant('t1', 10, '5 ms')});
eventually(sub { $server->safe_psql('postgres', q{SELECT rows_reencrypted > 100 FROM envelope.rotation_progress}) eq 't' });
$server->wait_for_catchup($standby);
$server->stop('immediate');
$rotator->quit;
is(wrong_values($standby), 0, 'the standby reads everything');
$standby->promote;
is(sqlstate($standby, q{CALL envelope_rotate_tenant('t1')}), '', 'promoted it goes on with the rotation');
is(rows_under($standby, 't1'), 0, 'to the end');
is(finish_suite($standby), 0, 'evicted and restarted, every value opens');
$standby->stop;

# One key among a thousand is bad.
$server->start;
$server->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array(SELECT 'many ' || g FROM generate_series(1, 500) g), 'eu');
	UPDATE envelope.tenant_keys SET wrapped_dek = set_byte(wrapped_dek, 20, 1 + get_byte(wrapped_dek, 20) % 255) WHERE tenant_id = 'many 77' AND purpose = 'data'});
my $xmin = q{SELECT md5(string_agg(xmin::text || ctid::text, ' ' ORDER BY id)) FROM docs};
my $before = $server->safe_psql('postgres', $xmin);
($rc, $out, $err) = $server->psql('postgres', q{CALL envelope_rotate_kek('eu', 'platform')});
like($err, qr/WARNING:  the rotation is not complete: 1 keys are still wrapped as they were\nDETAIL:  key \d+ of tenant "many 77" is corrupt/, 'one bad key is named');
is($server->safe_psql('postgres', q{SELECT keys_by_version->>'1' FROM envelope.status WHERE kek = 'eu'}), 1, 'and left alone');
is($server->safe_psql('postgres', q{SELECT phase FROM envelope.rotations WHERE kind = 'kek' ORDER BY rotation_id DESC LIMIT 1}), 'incomplete', 'which is on record');
is($server->safe_psql('postgres', $xmin), $before, 'no row of data was touched');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenants WHERE kek = 'eu'}), 0, 'tenants get their next key under the new one');

# Under a new version of the same KEK
open my $key, '>:raw', "$server->{keks}/platform.2.key" or die $!;
print $key join('', map { chr(int(rand 256)) } 1 .. 32);
close $key;
chmod 0600, "$server->{keks}/platform.2.key";
is($psql->(q{CALL envelope_rotate_kek('platform')}), '', 'to the newest version');
is($server->safe_psql('postgres', q{SELECT string_agg(k, ' ') FROM envelope.status, jsonb_object_keys(keys_by_version) k WHERE kek = 'platform'}), '2', 'no key is left under the first');
is(finish_suite($server), 0, 'evicted and restarted, every value opens');
$server->stop;
done_testing();
