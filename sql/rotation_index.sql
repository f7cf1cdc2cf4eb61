-- Rotations go by indexes where there are some that can be trusted.

SELECT envelope_create_tenants(array['few', 'many', '77', '6a7f5c1e-0000-4000-8000-000000000077']) AS made;
CREATE TABLE ix (id int, tenant_id text, body bytea, filler text DEFAULT repeat('x', 400));
INSERT INTO ix SELECT g, t, envelope_encrypt(t, 'body ' || g, 'ix')
FROM (SELECT g, CASE WHEN g % 1000 = 1 THEN 'few' ELSE 'many' END AS t FROM generate_series(1, 5000) g) s;
SELECT envelope_register_column('ix', 'body', 'tenant_id', 'ix');

-- What a rotation has read: rows of the table itself, and both indexes.  The
-- proof names the index that was asked.
CREATE FUNCTION read_from(rel regclass) RETURNS TABLE (name text, scanned bool, tuples bigint) LANGUAGE sql AS $$
	SELECT indexrelname, idx_scan > 0, idx_tup_read FROM pg_stat_user_indexes WHERE relid = rel
	UNION ALL SELECT relname, seq_tup_read > 0, seq_tup_read FROM pg_stat_user_tables WHERE relid = rel ORDER BY 1 $$;
CREATE PROCEDURE rotated(tenant text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT c->>'table' AS t, c->>'column' AS c, c->>'index' AS i, c->>'rows' AS n FROM jsonb_array_elements((
		SELECT proof->'columns' FROM envelope.rotations WHERE tenant_id = tenant AND phase = 'proven' ORDER BY rotation_id DESC LIMIT 1)) c
		WHERE c->>'table' LIKE 'public.ix%' ORDER BY c->>'table' COLLATE "C", c->>'column' COLLATE "C"
	LOOP
		RAISE NOTICE '%.%: index %, rows %', r.t, r.c, r.i, r.n;
	END LOOP;
	FOR r IN SELECT k.state, count(*) FROM ix JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(body)
		WHERE k.tenant_id = tenant AND envelope_decrypt(k.tenant_id, body, 'ix') IS NOT NULL GROUP BY 1
	LOOP
		RAISE NOTICE '% values under a key that is %', r.count, r.state;
	END LOOP;
END $$;

-- Without an index every row is read, once to re-encrypt and once to prove.
SELECT pg_stat_reset_single_table_counters('ix'::regclass) AS reset;
CALL envelope_rotate_tenant('few');
SELECT pg_stat_force_next_flush();
SELECT * FROM read_from('ix');
CALL rotated('few');

-- With one on the tenant, the blocks of its rows are.
CREATE INDEX ix_tenant ON ix (tenant_id, id DESC);
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset_single_table_counters('ix'::regclass), pg_stat_reset_single_table_counters('ix_tenant'::regclass);
CALL envelope_rotate_tenant('few');
SELECT pg_stat_force_next_flush();
SELECT name, scanned, CASE WHEN name = 'ix' THEN tuples BETWEEN 5005 AND 6500 ELSE tuples >= 5 END AS as_few_as_that FROM read_from('ix');
CALL rotated('few');

-- With one on key ids, no row is read to prove that none is under the old key.
CREATE INDEX ix_key ON ix (envelope_key_id(body));
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset_single_table_counters('ix'::regclass), pg_stat_reset_single_table_counters('ix_tenant'::regclass), pg_stat_reset_single_table_counters('ix_key'::regclass);
CALL envelope_rotate_tenant('few');
SELECT pg_stat_force_next_flush();
SELECT name, scanned, CASE WHEN name = 'ix' THEN tuples BETWEEN 5 AND 1500 END AS as_few_as_that FROM read_from('ix');
CALL rotated('few');

-- A value under the key of a tenant that its row does not name is found by the
-- second index, and re-encrypted by going through all rows.
UPDATE ix SET tenant_id = 'many' WHERE id = 1001;
CALL envelope_rotate_tenant('few');
CALL rotated('few');
DROP INDEX ix_key;
CALL envelope_rotate_tenant('few');
CALL rotated('few');
UPDATE ix SET tenant_id = 'few' WHERE id = 1001;

-- Indexes that could miss a row, or answer otherwise, are not asked: of another
-- kind, of some rows only, with another operator class, on something else, or
-- not led by it.
DROP INDEX ix_tenant;
CREATE INDEX ix_a ON ix USING hash (tenant_id);
CREATE INDEX ix_b ON ix (tenant_id text_pattern_ops);
CREATE INDEX ix_c ON ix (tenant_id COLLATE "POSIX");
CREATE INDEX ix_d ON ix (id, tenant_id);
CREATE INDEX ix_e ON ix (tenant_id) WHERE id > 0;
CREATE INDEX ix_f ON ix USING hash (envelope_key_id(body));
CREATE INDEX ix_g ON ix (envelope_key_id(body)) WHERE body IS NOT NULL;
CREATE INDEX ix_h ON ix ((envelope_key_id(body)::numeric));
CREATE INDEX ix_i ON ix ((envelope_key_id(body) + 0));
CREATE INDEX ix_j ON ix (id, envelope_key_id(body));
CREATE INDEX ix_k ON ix (envelope_key_id(substr(body, 1)));
CREATE FUNCTION envelope_key_id(bytea, int) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 0;
CREATE INDEX ix_l ON ix (envelope_key_id(body, 0));
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset_single_table_counters(c.oid) FROM pg_class c WHERE relname LIKE 'ix%' AND relnamespace = 'public'::regnamespace;
CALL envelope_rotate_tenant('few');
SELECT pg_stat_force_next_flush();
SELECT * FROM read_from('ix') WHERE scanned;
CALL rotated('few');
DROP INDEX ix_a, ix_b, ix_c, ix_d, ix_e, ix_f, ix_g, ix_h, ix_i, ix_j, ix_k, ix_l;
DROP FUNCTION envelope_key_id(bytea, int);

-- Nor are those that are not finished: this one has missed a row.
CREATE INDEX ix_tenant ON ix (tenant_id);
CREATE INDEX ix_key ON ix (envelope_key_id(body));
UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid IN ('ix_tenant'::regclass, 'ix_key'::regclass);
INSERT INTO ix SELECT 9000 + g, 'few', envelope_encrypt('few', 'missed', 'ix') FROM generate_series(1, 3) g;
UPDATE pg_index SET indisready = true WHERE indexrelid IN ('ix_tenant'::regclass, 'ix_key'::regclass);
CALL envelope_rotate_tenant('few');
CALL rotated('few');
-- Made anew they are.
REINDEX INDEX ix_tenant;
REINDEX INDEX ix_key;
CALL envelope_rotate_tenant('few');
CALL rotated('few');

-- Death looks at the rows, whatever indexes say.
CALL envelope_rotate_tenant('few');
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset_single_table_counters('ix'::regclass), pg_stat_reset_single_table_counters('ix_key'::regclass);
SET client_min_messages = error;
CALL envelope_destroy_retired_keys('few');
RESET client_min_messages;
SELECT pg_stat_force_next_flush();
SELECT name, scanned FROM read_from('ix');
SELECT state, count(*) > 0 AS there FROM envelope.tenant_keys WHERE tenant_id = 'few' AND purpose = 'data' GROUP BY 1 ORDER BY 1;

-- Other types of tenant columns, and ids that no value of theirs is
CREATE TABLE ix_int (tenant_id int, body bytea);
CREATE TABLE ix_uuid (tenant_id uuid, body bytea);
CREATE INDEX ON ix_int (tenant_id);
CREATE INDEX ON ix_uuid (tenant_id);
CREATE INDEX ON ix_int (envelope_key_id(body));
CREATE TABLE ix_bigint (tenant_id bigint, body bytea);
CREATE TABLE ix_varchar (tenant_id varchar(60), body bytea);
CREATE INDEX ON ix_bigint (tenant_id);
CREATE INDEX ON ix_varchar (tenant_id);
INSERT INTO ix_bigint SELECT 77, envelope_encrypt('77', 'b ' || g, 'b') FROM generate_series(1, 10) g;
INSERT INTO ix_varchar SELECT '77', envelope_encrypt('77', 'v ' || g, 'v') FROM generate_series(1, 10) g;
SELECT envelope_register_column('ix_bigint', 'body', 'tenant_id', 'b'), envelope_register_column('ix_varchar', 'body', 'tenant_id', 'v');
INSERT INTO ix_int SELECT 77, envelope_encrypt('77', 'i ' || g, 'i') FROM generate_series(1, 10) g;
INSERT INTO ix_uuid SELECT '6a7f5c1e-0000-4000-8000-000000000077', envelope_encrypt('6a7f5c1e-0000-4000-8000-000000000077', 'u ' || g, 'u') FROM generate_series(1, 10) g;
SELECT envelope_register_column('ix_int', 'body', 'tenant_id', 'i'), envelope_register_column('ix_uuid', 'body', 'tenant_id', 'u');
CALL envelope_rotate_tenant(77);
CALL envelope_rotate_tenant('6a7f5c1e-0000-4000-8000-000000000077'::uuid);
-- However long it takes: progress is told every ten seconds.
SET client_min_messages = warning;
CALL envelope_rotate_tenant('many', 2000);
RESET client_min_messages;
CALL rotated('77');
SELECT k.tenant_id, k.state, count(*), min(envelope_decrypt(k.tenant_id, body, c)) FROM (
	SELECT body, 'i' AS c FROM ix_int UNION ALL SELECT body, 'u' FROM ix_uuid UNION ALL SELECT body, 'b' FROM ix_bigint UNION ALL SELECT body, 'v' FROM ix_varchar) s
	JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(body) GROUP BY 1, 2, c ORDER BY 1, 2, 4;
SELECT pg_stat_force_next_flush();
SELECT relname, idx_scan > 0 AS tenants_by_index FROM pg_stat_user_indexes WHERE indexrelname LIKE 'ix_%_tenant_id_idx' ORDER BY 1;
-- A protected table can have such indexes too; its proof is by index if every
-- column has one.
CREATE TABLE ix_protected (id int, tenant_id text, email text, ssn text);
SELECT envelope_protect('ix_protected', 'tenant_id', '{email,ssn}', '{email}');
INSERT INTO ix_protected SELECT g, 'few', 'e' || g, 's' || g FROM generate_series(1, 10) g;
CREATE INDEX ix_email_key ON ix_protected (envelope_key_id(email__sealed), id);
CREATE FUNCTION envelope_key_id(text) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 0;
CREATE SCHEMA theirs;
CREATE FUNCTION theirs.envelope_key_id(bytea) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 0;
SELECT e AS expression, outcome(format('CREATE INDEX ON ix_protected ((%s))', e)) FROM unnest(array[
	'envelope_key_id(email)', 'theirs.envelope_key_id(email__sealed)', 'length(email__sealed)', 'envelope_key_id(email__sealed) + 1', 'envelope_key_id(ix_protected.email__term)']) e;
DROP FUNCTION envelope_key_id(text), theirs.envelope_key_id(bytea);
DROP SCHEMA theirs;
CALL envelope_rotate_tenant('few');
CALL rotated('few');
CREATE INDEX ix_ssn_key ON ix_protected (public.envelope_key_id(ix_protected.ssn__sealed));
CALL envelope_rotate_tenant('few');
CALL rotated('few');
SELECT count(*), min(email), max(ssn) FROM ix_protected;
SELECT envelope_unprotect('ix_protected');
SELECT indexname FROM pg_indexes WHERE tablename = 'ix_protected';
SELECT failures, "values" FROM envelope_verify_tenant('many') WHERE table_name = 'public.ix';

SELECT envelope_unregister_column('ix', 'body'), envelope_unregister_column('ix_int', 'body'), envelope_unregister_column('ix_uuid', 'body'), envelope_unregister_column('ix_bigint', 'body'), envelope_unregister_column('ix_varchar', 'body');
DROP TABLE ix, ix_protected, ix_int, ix_uuid, ix_bigint, ix_varchar;
DROP PROCEDURE rotated;
DROP FUNCTION read_from;
