-- Protecting a table that has rows, and making it an ordinary one again: what
-- the application sees of both is the same, and the files hold no plaintext.

CREATE EXTENSION IF NOT EXISTS citext;
SET client_min_messages = notice;

CREATE TABLE clients (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	"Tenant" text,
	email citext NOT NULL,
	"Ssn" varchar(11) CONSTRAINT ssn_length CHECK (length("Ssn") > 2),
	born date,
	balance numeric(10,2),
	photo bytea,
	note text DEFAULT 'x',
	CONSTRAINT client_email UNIQUE ("Tenant", email) WITH (fillfactor = 80),
	CONSTRAINT known CHECK ("Ssn" IS NOT NULL OR born IS NOT NULL OR note = 'unknown'));
COMMENT ON CONSTRAINT client_email ON clients IS 'one client an address';
COMMENT ON CONSTRAINT known ON clients IS 'we know something';
COMMENT ON COLUMN clients.email IS 'an address';
CREATE INDEX clients_born ON clients ("Tenant", born DESC) WHERE note <> 'gone';
COMMENT ON INDEX clients_born IS 'by age';
INSERT INTO clients ("Tenant", email, "Ssn", born, balance, photo)
SELECT 't' || 1 + i % 2, 'Client' || i || '@x', '123-' || i, date '2000-01-01' + i, i * 1.5, decode(repeat('ab', i), 'hex')
FROM generate_series(1, 100) i;
INSERT INTO clients ("Tenant", email, born) VALUES ('t1', '', '2000-01-01');
INSERT INTO clients ("Tenant", email, "Ssn", photo) SELECT 't2', 'large', '123', decode(string_agg(md5(i::text), ''), 'hex') FROM generate_series(1, 60000) i;
ANALYZE clients;
CREATE TABLE twin AS SELECT * FROM clients;

-- What is known of the table's definition; the same before and after
CREATE FUNCTION definition(rel regclass) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, col_description(attrelid, attnum))
	FROM pg_attribute WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped
	UNION ALL
	SELECT concat_ws(' ', conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'))
	FROM pg_constraint WHERE conrelid = rel
	UNION ALL
	SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisclustered, obj_description(indexrelid, 'pg_class'))
	FROM pg_index WHERE indrelid = rel
	UNION ALL
	SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = rel
$$;
CREATE TABLE before AS SELECT definition('clients');

SELECT envelope_protect('clients', 'Tenant', '{email,Ssn}', '{email}');
-- a second call, for further columns; an index makes no difference without a term
SELECT message($$SELECT envelope_protect('clients', 'Tenant', '{born,photo,balance}')$$);
SELECT envelope_protect('clients', 'Tenant', '{born,photo,balance}', '{born}');
SELECT * FROM definition('clients') d (line) WHERE line NOT IN (SELECT definition FROM before) AND line !~ ' NOT NULL email__sealed' ORDER BY line COLLATE "C";
SELECT attname FROM pg_stats WHERE tablename = 'clients' ORDER BY 1;

-- Every value is there, under its own tenant.
CREATE FUNCTION clients_opened() RETURNS SETOF twin LANGUAGE sql SET envelope.stored_form = on AS $$
	SELECT id, "Tenant", envelope_decrypt("Tenant", email__sealed, 'public.clients.email'),
		envelope_decrypt("Tenant", "Ssn__sealed", 'public.clients.Ssn'),
		envelope_decrypt("Tenant", born__sealed, 'public.clients.born')::date,
		envelope_decrypt("Tenant", balance__sealed, 'public.clients.balance')::numeric,
		envelope_decrypt_bytea("Tenant", photo__sealed, 'public.clients.photo'), note
	FROM clients
$$;
SELECT count(*) AS same FROM (SELECT * FROM twin INTERSECT SELECT * FROM clients_opened()) s;
SELECT count(*) AS same FROM (SELECT * FROM twin INTERSECT SELECT id, "Tenant", email, "Ssn", born, balance, photo, note FROM clients) s;

-- The constraints hold, under their names and without values.
SELECT message($$INSERT INTO clients ("Tenant", email, "Ssn") VALUES ('t1', 'new', '1')$$);
SELECT message($$INSERT INTO clients ("Tenant", email) VALUES ('t1', 'new')$$);
SELECT message($$INSERT INTO clients ("Tenant", "Ssn") VALUES ('t1', '123')$$);
SELECT outcome($$INSERT INTO clients ("Tenant", email, "Ssn") VALUES ('t1', 'CLIENT2@X', '123')$$) AS unique;
INSERT INTO clients ("Tenant", email, note) VALUES ('t2', 'client2@x', 'unknown');
-- A column of the constraint that is not protected changes: what it mentions is opened.
SELECT message($$UPDATE clients SET note = 'known' WHERE note = 'unknown'$$);
UPDATE clients SET note = 'y' WHERE note = 'x';
DELETE FROM clients WHERE note = 'unknown';

-- Nothing of it is in the table's files.
CREATE FUNCTION file_holds(rel regclass, needle bytea) RETURNS boolean LANGUAGE sql AS $$
	SELECT position(needle IN pg_read_binary_file(pg_relation_filepath(rel))) > 0
$$;
CHECKPOINT;
SELECT file_holds('clients', 'lient77@x') AS email, file_holds('clients', '123-7') AS ssn, file_holds('twin', 'lient77@x') AS of_the_twin;

SELECT envelope_unprotect('clients');
SELECT count(*) AS same FROM (SELECT id, email, "Ssn", born, balance, photo FROM twin INTERSECT SELECT id, email, "Ssn", born, balance, photo FROM clients) s;
SELECT definition('clients') EXCEPT SELECT definition FROM before;
SELECT definition FROM before EXCEPT SELECT definition('clients');

-- Rows that cannot be sealed are named before anything is changed.
CREATE TABLE odd (id integer PRIMARY KEY, tenant_id text, secret text);
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, split_part(context, E'\n', 1));
END
$$;
INSERT INTO odd VALUES (1, 't1', 'a'), (2, 'nobody', NULL), (3, NULL, NULL), (4, NULL, 'b');
SELECT refusal($$SELECT envelope_protect('odd', 'tenant_id', '{secret}')$$);
DELETE FROM odd WHERE id = 4;
INSERT INTO odd VALUES (5, 'nobody', 'c');
SELECT refusal($$SELECT envelope_protect('odd', 'tenant_id', '{secret}')$$);
DELETE FROM odd WHERE id = 5;
SELECT envelope_protect('odd', 'tenant_id', '{secret}');
SELECT count(secret) FROM odd;
DROP TABLE odd, clients, twin, before CASCADE;
DROP FUNCTION refusal, file_holds, definition;
