-- What envelope_doctor() finds, one thing after the other; that it finds nothing
-- when all is well; and that looking changes nothing.

SELECT * FROM envelope_doctor();
SELECT count(*) AS rows, md5(string_agg(k::text, ';' ORDER BY key_id)) AS keys, (SELECT md5(string_agg(t::text, ';' ORDER BY tenant_id)) FROM envelope.tenants t) AS tenants,
	calls('unwrap') + calls('generate') + calls('check') AS calls FROM envelope.tenant_keys k \gset before_

-- KEKs
BEGIN;
SELECT envelope_alter_kek('platform', is_default => false);
SELECT * FROM envelope_doctor();
ROLLBACK;

-- Tables that were restored in part
BEGIN;
INSERT INTO envelope.tenants (tenant_id, kek) VALUES ('without keys', 'platform'), ('without an index key', 'platform'), ('gone', NULL);
INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state) VALUES
	(1, 'without an index key', 'data', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(2, 'without an index key', 'index', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'retired'),
	(3, 'nobody', 'data', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(4, 'nobody', 'index', 'no such KEK', '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(5, 'nobody', 'data', 'no such KEK', '\x00', decode(repeat('00', 32), 'hex'), 'retired');
UPDATE envelope.tenants SET state = 'scheduled' WHERE tenant_id = 'gone';
UPDATE envelope.tenants SET state = 'destroyed' WHERE tenant_id = 'gone';
SELECT * FROM envelope_doctor() ORDER BY subject COLLATE "C", finding COLLATE "C";
ROLLBACK;

-- Guards that are gone
BEGIN;
DROP TRIGGER guard ON envelope.keks;
DROP TRIGGER guard_truncate ON envelope.tenant_keys;
SELECT * FROM envelope_doctor() ORDER BY subject COLLATE "C";
ROLLBACK;

-- Privileges
BEGIN;
GRANT EXECUTE ON FUNCTION envelope_decrypt(text, bytea, text), envelope_evict_all() TO PUBLIC;
SELECT * FROM envelope_doctor() ORDER BY subject COLLATE "C";
ROLLBACK;

-- What is stored open
BEGIN;
CREATE MATERIALIZED VIEW opened AS SELECT envelope_decrypt('t1', v) AS text, envelope_decrypt_bytea('t1', v) AS bytea FROM (VALUES (NULL::bytea)) s (v);
CREATE VIEW not_stored AS SELECT envelope_decrypt('t1', v) AS text FROM (VALUES (NULL::bytea)) s (v);
SELECT * FROM envelope_doctor();
ROLLBACK;
BEGIN;
CREATE TABLE sealed (v bytea);
CREATE STATISTICS samples ON (envelope_decrypt('t1', v)) FROM sealed;
CREATE INDEX ON sealed (envelope.open('t1'::text, v, '', NULL::text));
SELECT * FROM envelope_doctor() ORDER BY subject COLLATE "C";
ROLLBACK;

-- Settings
BEGIN;
SET LOCAL log_statement = 'ddl';
SET LOCAL log_parameter_max_length = -1;
SELECT * FROM envelope_doctor();
SET LOCAL log_statement = 'mod';
SET LOCAL log_parameter_max_length_on_error = -1;
SELECT * FROM envelope_doctor() ORDER BY subject COLLATE "C";
SET LOCAL log_parameter_max_length = 0;
SET LOCAL log_parameter_max_length_on_error = 0;
SET LOCAL log_statement = 'none';
SET LOCAL log_min_duration_statement = '1s';
SELECT * FROM envelope_doctor();
SET LOCAL log_min_duration_statement = -1;
LOAD 'auto_explain';
SET LOCAL auto_explain.log_min_duration = 0;
SELECT * FROM envelope_doctor();
ROLLBACK;

SELECT * FROM envelope_doctor();
SELECT count(*) - :before_rows AS rows, md5(string_agg(k::text, ';' ORDER BY key_id)) = :'before_keys' AS same_keys,
	(SELECT md5(string_agg(t::text, ';' ORDER BY tenant_id)) FROM envelope.tenants t) = :'before_tenants' AS same_tenants,
	calls('unwrap') + calls('generate') + calls('check') - :before_calls AS calls FROM envelope.tenant_keys k;

-- Protected tables
CREATE TABLE patients (id integer, tenant_id text, name text, born date, UNIQUE (tenant_id, name));
SELECT envelope_protect('patients', 'tenant_id', '{name,born}');
SELECT * FROM envelope.protected_columns;
SELECT * FROM envelope_doctor();
BEGIN;
ALTER TABLE patients DROP CONSTRAINT patients_tenant_id_name_key;
SET LOCAL envelope.allow_plaintext_copies = on;
CREATE MATERIALIZED VIEW patient_names AS SELECT name FROM patients;
UPDATE pg_trigger SET tgenabled = 'O' WHERE tgrelid = 'patients'::regclass;
SELECT * FROM envelope_doctor() ORDER BY finding COLLATE "C";
ROLLBACK;
BEGIN;
DELETE FROM pg_trigger WHERE tgrelid = 'patients'::regclass;
SELECT * FROM envelope_doctor() ORDER BY finding COLLATE "C";
ROLLBACK;
DROP TABLE patients;
