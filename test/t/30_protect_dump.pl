# A table that is protected and made ordinary again has the definition it had,
# byte for byte in pg_dump -s; while it is protected, dumps and restores carry it,
# and need no key.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('origin');
$server->safe_psql('postgres', q{CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN; CREATE DATABASE shop});
$server->safe_psql('shop', q{
	CREATE EXTENSION envelope;
	CREATE SCHEMA "My Shop" AUTHORIZATION owner;
	SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
	SELECT envelope_create_tenants(array['t1', 't2']), envelope_grant('reader', 'use'), envelope_grant('owner', 'admin');
	SET SESSION AUTHORIZATION owner;
	SET search_path = "My Shop";
	CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.note := length(new.email); RETURN new; END';
	CREATE TABLE "Customers" (
		id bigint GENERATED ALWAYS AS IDENTITY,
		"Tenant" varchar(20) NOT NULL,
		email text COLLATE "C" NOT NULL DEFAULT 'nobody@x',
		ssn varchar(11),
		"Born" date,
		amount numeric(10, 2) DEFAULT 0,
		note text,
		len integer GENERATED ALWAYS AS (length(note)) STORED,
		PRIMARY KEY ("Tenant", id),
		CONSTRAINT email_once UNIQUE ("Tenant", email) DEFERRABLE INITIALLY DEFERRED,
		CONSTRAINT born_or_ssn CHECK ("Born" IS NOT NULL OR ssn IS NOT NULL) NO INHERIT
	) WITH (fillfactor = 90);
	ALTER TABLE "Customers" ADD CONSTRAINT "Ssn ok" CHECK (length(ssn) > 2) NOT VALID;
	CREATE UNIQUE INDEX "Born once" ON "Customers" ("Born" DESC NULLS LAST, "Tenant") WITH (fillfactor = 70) WHERE note <> '';
	CREATE INDEX by_mail ON "Customers" (email);
	ALTER TABLE "Customers" CLUSTER ON by_mail;
	ALTER TABLE "Customers" ENABLE ROW LEVEL SECURITY;
	ALTER TABLE "Customers" ALTER COLUMN ssn SET STATISTICS 50;
	CREATE POLICY own ON "Customers" USING ("Tenant" = current_setting('app.tenant', true) AND email <> 'hidden');
	CREATE TRIGGER stamp BEFORE INSERT OR UPDATE OF email ON "Customers" FOR EACH ROW WHEN (new.email <> '') EXECUTE FUNCTION stamp('a', '');
	CREATE VIEW emails AS SELECT id, email FROM "Customers";
	GRANT SELECT (email, id), INSERT (email) ON "Customers" TO reader;
	GRANT SELECT ON "Customers" TO reader WITH GRANT OPTION;
	COMMENT ON COLUMN "Customers".ssn IS 'secret';
	COMMENT ON CONSTRAINT "Ssn ok" ON "Customers" IS 'long enough';
	COMMENT ON CONSTRAINT email_once ON "Customers" IS 'one each';
	COMMENT ON INDEX "Born once" IS 'odd';
	COMMENT ON TRIGGER stamp ON "Customers" IS 'stamps';
	INSERT INTO "Customers" ("Tenant", email, ssn, "Born") SELECT 't' || 1 + i % 2, 'user' || i || '@example.com', '123-' || i, date '2000-01-01' + i FROM generate_series(1, 500) i;
	CREATE TABLE twin AS SELECT * FROM "Customers";
});

my $folder = PostgreSQL::Test::Utils::tempdir;

# dump_schema FILE: the definitions, without what differs from dump to dump.
sub dump_schema
{
	my ($file) = @_;
	$server->command_ok([ 'pg_dump', '-s', '-n', '"My Shop"', '-f', "$folder/$file", 'shop' ], "dump $file");
	my $text = slurp_file("$folder/$file");
	$text =~ s/^\\(un)?restrict .*$//mg;
	return $text;
}

my $before = dump_schema('before');
$server->safe_psql('shop', q{
	SET SESSION AUTHORIZATION owner;
	SELECT envelope_protect('"My Shop"."Customers"', 'Tenant', '{email,ssn}');
	SELECT envelope_protect('"My Shop"."Customers"', 'Tenant', '{"Born",amount}');
});
my $protected = dump_schema('protected');
isnt($protected, $before, 'protected, it has another definition');
my $differ = q{SET search_path = "My Shop"; SELECT count(*) FROM (SELECT id, "Tenant", email, ssn, "Born", amount, note FROM twin EXCEPT SELECT id, "Tenant", email, ssn, "Born", amount, note FROM "Customers") d};
is($server->safe_psql('shop', $differ), 0, 'every row reads as before');

# Dumps of the protected table
set_faults($server, 'platform:denied');
$server->safe_psql('shop', 'SELECT envelope_evict_all()');
$server->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/custom", 'shop' ], 'pg_dump needs no key');
$server->command_ok([ 'pg_dump', '-f', "$folder/plain", 'shop' ], 'nor in plain format');
$server->safe_psql('postgres', 'CREATE DATABASE copy; CREATE DATABASE again');
$server->command_ok([ 'pg_restore', '-d', 'copy', "$folder/custom" ], 'pg_restore needs none');
$server->command_ok([ 'pg_restore', '--data-only', '--disable-triggers', '-d', 'copy', '-t', 'Customers', "$folder/custom" ], 'nor into tables that are there')
	if $server->safe_psql('copy', 'TRUNCATE "My Shop"."Customers"; SELECT true') eq 't';
$server->command_ok([ 'psql', '-qXf', "$folder/plain", 'again' ], 'nor does psql');
unlike(slurp_file("$folder/plain"), qr/COPY "My Shop"."Customers".*user\d+\@example.*COPY "My Shop".twin/s, 'the dump holds ciphertext');
set_faults($server, '');
for my $database ('copy', 'again')
{
	$server->safe_psql($database, 'SELECT envelope_evict_all()');
	is($server->safe_psql($database, $differ), 0, "$database: every row reads as before");
	is($server->safe_psql($database, q{SELECT count(*) FROM pg_trigger WHERE tgname = 'zzz_envelope_seal' AND tgenabled = 'A'}), 1, "$database: the trigger is ALWAYS");
	is($server->safe_psql($database, q{SELECT count(*) FROM envelope_doctor() WHERE severity = 'error'}), 0, "$database: doctor is content");
	my ($rc, $out, $err) = $server->psql($database, q{INSERT INTO "My Shop"."Customers" ("Tenant", email, ssn) VALUES ('t1', 'x', '1')});
	like($err, qr/violates check constraint "Ssn ok"/, "$database: constraints hold");
}

$server->safe_psql('shop', q{SET SESSION AUTHORIZATION owner; SELECT envelope_unprotect('"My Shop"."Customers"')});
is(dump_schema('after'), $before, 'made ordinary again, it has the definition that it had');
is($server->safe_psql('shop', $differ), 0, 'and the rows');
$server->stop;
done_testing();
