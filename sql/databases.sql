-- Several databases in one server: the same key ids, other encodings, and one
-- that goes away.

SELECT envelope_encrypt('t1', 'shared') AS sealed \gset
SELECT envelope_evict_all() >= 0;

-- A copy has the same keys, and memory of its own.
\c postgres
CREATE DATABASE regress_copy TEMPLATE contrib_regression;
\c regress_copy
SELECT envelope_decrypt('t1', :'sealed');
SELECT count(*) FROM envelope.cache WHERE database = 'regress_copy';
SELECT envelope_suspend_tenant('t1');
SELECT outcome(format('SELECT envelope_decrypt(%L, %L::bytea)', 't1', :'sealed')) AS suspended_here;
\c contrib_regression
SELECT envelope_decrypt('t1', :'sealed') AS open_there;
\c regress_copy
SELECT envelope_resume_tenant('t1');
SELECT envelope_decrypt('t1', :'sealed');
\c contrib_regression
SELECT database, count(*) FROM envelope.cache GROUP BY 1 ORDER BY 1;
CREATE ROLE regress_operator;
SELECT envelope_grant('regress_operator', 'operate');
SET ROLE regress_operator;
SELECT DISTINCT database FROM envelope.cache;
RESET ROLE;
SELECT envelope_revoke('regress_operator', 'operate');
DROP ROLE regress_operator;
DROP DATABASE regress_copy;
SELECT database, count(*) FROM envelope.cache GROUP BY 1 ORDER BY 1;

-- Text is sealed as UTF-8 in every encoding.
SELECT envelope_create_tenant('Müller') > 0;
SELECT envelope_encrypt('Müller', 'Grüße', 'Straße') AS sealed, envelope_encrypt('Müller', '€', 'c') AS euro,
	envelope_blind_index('Müller', 'Grüße', 'Straße') AS term \gset
SELECT key_id AS data_id, wrapped_dek AS data_dek, key_check AS data_check FROM envelope.tenant_keys WHERE tenant_id = 'Müller' AND purpose = 'data' \gset
SELECT key_id AS index_id, wrapped_dek AS index_dek, key_check AS index_check FROM envelope.tenant_keys WHERE tenant_id = 'Müller' AND purpose = 'index' \gset

CREATE DATABASE regress_latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_latin1
SET client_encoding = 'UTF8';
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
INSERT INTO envelope.tenants (tenant_id, kek) VALUES ('Müller', 'platform');
INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, kek_version, wrapped_dek, key_check, state) VALUES
	(:data_id, 'Müller', 'data', 'platform', '1', :'data_dek', :'data_check', 'active'),
	(:index_id, 'Müller', 'index', 'platform', '1', :'index_dek', :'index_check', 'active');
SELECT envelope_decrypt('Müller', :'sealed', 'Straße') AS opened, length(envelope_decrypt('Müller', :'sealed', 'Straße')),
	octet_length(envelope_decrypt('Müller', :'sealed', 'Straße')),
	envelope_blind_index('Müller', 'Grüße', 'Straße') = :'term' AS same_term;
SELECT envelope_encrypt('Müller', 'Grüße', 'Straße') AS sealed \gset
SELECT tenant_id FROM envelope.cache WHERE database = current_database();
-- a character that this encoding lacks; the error does not show it
SELECT envelope_decrypt('Müller', :'euro', 'c');
\c contrib_regression
SELECT envelope_decrypt('Müller', :'sealed', 'Straße') AS sealed_in_latin1;
DROP DATABASE regress_latin1;

CREATE DATABASE regress_eucjp TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_eucjp
SET client_encoding = 'UTF8';
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_create_tenant('日本') > 0;
SELECT envelope_decrypt('日本', envelope_encrypt('日本', '漢字かな', '列'), '列'),
	length(envelope_encrypt('日本', '漢字かな', '列')) - 45 AS bytes_in_utf8, octet_length('漢字かな') AS bytes_here;
\c contrib_regression
DROP DATABASE regress_eucjp;

CREATE DATABASE regress_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_ascii
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_create_tenant('t1') > 0;
SELECT envelope_decrypt('t1', envelope_encrypt('t1', 'Grüße')) = 'Grüße' AS utf8;
SELECT envelope_encrypt('t1', E'\xff\xfe');
SELECT envelope_encrypt(E'\xff', 'x');
SELECT envelope_encrypt('t1', 'x', E'\xff');
SELECT envelope_create_tenant(E'\xff');
\c contrib_regression
DROP DATABASE regress_ascii;

-- A schema and tables that only have our names, in a database without the
-- extension, are no business of ours.
\c postgres
CREATE DATABASE regress_lookalike TEMPLATE template0;
\c regress_lookalike
CREATE SCHEMA envelope;
CREATE VIEW envelope.tenant_keys AS SELECT 1 AS a;
DROP VIEW envelope.tenant_keys;
CREATE TABLE envelope.tenant_keys (a int);
INSERT INTO envelope.tenant_keys VALUES (1);
DROP TABLE envelope.tenant_keys;
CREATE TABLE envelope.keks (a int);
ALTER TABLE envelope.keks ENABLE TRIGGER ALL;

-- Nor are functions of our functions' names called by whoever reads a table.
CREATE FUNCTION envelope.seal() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION envelope.open(text, bytea, text, anyelement) RETURNS anyelement LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE TABLE envelope.bait (tenant text, x text, x__sealed bytea);
CREATE TRIGGER zzz_envelope_seal BEFORE INSERT ON envelope.bait FOR EACH ROW
	EXECUTE FUNCTION envelope.seal('tenant', 'x', 'x__sealed', '', 'c');
INSERT INTO envelope.bait VALUES ('t', 'plain', '\x00');
SELECT x FROM envelope.bait;
COPY envelope.bait TO STDOUT;
SET client_min_messages = warning;
DROP SCHEMA envelope CASCADE;
RESET client_min_messages;

-- Operators that somebody has planted in the extension's schema, and that fit
-- better than PostgreSQL's, are not run by whoever makes it, nor by what runs
-- as its owner.
CREATE TABLE planted (who name);
CREATE FUNCTION plant(text, timestamptz) RETURNS text LANGUAGE sql AS
	$$INSERT INTO public.planted VALUES (current_user) RETURNING 'planted'$$;
CREATE OPERATOR || (LEFTARG = text, RIGHTARG = timestamptz, FUNCTION = plant);
CREATE FUNCTION plant(bigint, bigint) RETURNS text LANGUAGE sql AS
	$$INSERT INTO public.planted VALUES (current_user) RETURNING 'planted'$$;
CREATE OPERATOR || (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = plant);
CREATE FUNCTION plant(regprocedure, regprocedure) RETURNS text LANGUAGE sql AS
	$$INSERT INTO public.planted VALUES (current_user) RETURNING 'planted'$$;
CREATE OPERATOR || (LEFTARG = regprocedure, RIGHTARG = regprocedure, FUNCTION = plant);
CREATE EXTENSION envelope;
SELECT envelope_create_kek('absent', 'local://absent', is_default => true);
SELECT outcome FROM envelope_check_kek('absent');
SELECT severity, subject, finding LIKE '%planted%' AS planted FROM envelope_doctor() WHERE subject LIKE 'KEK %';
SELECT * FROM planted;

-- The schema of the functions may be renamed.
ALTER SCHEMA public RENAME TO "other schema";
SET search_path = "other schema";
CREATE ROLE regress_renamed;
SELECT envelope_grant('regress_renamed', 'use');
SELECT count(*) AS functions FROM pg_proc WHERE has_function_privilege('regress_renamed', oid, 'EXECUTE')
	AND pronamespace = '"other schema"'::regnamespace AND proname ~ '^envelope_(encrypt|decrypt|blind|reencrypt)';
SELECT envelope_revoke('regress_renamed', 'use');
DROP ROLE regress_renamed;
\c contrib_regression
DROP DATABASE regress_lookalike;
