-- In a server that does not preload the library: what needs no key works, what
-- needs one says what to do, and nothing else is harmed.

CREATE EXTENSION envelope;
SELECT envelope_is_sealed('\x00'), envelope_key_id('\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'));
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_encrypt('t1', 'x');
\set VERBOSITY sqlstate
SELECT envelope_decrypt('t1', envelope_encrypt('t1', 'x'));
SELECT envelope_decrypt('t1', '\x');
SELECT envelope_decrypt('t1', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'));
SELECT envelope_encrypt_deterministic('t1', 'x');
SELECT envelope_blind_index('t1', 'x');
SELECT envelope_blind_index_of('t1', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'));
SELECT envelope_reencrypt('t1', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'));
SELECT envelope_create_tenant('t1');
SELECT envelope_create_tenants(array['t1']);
SELECT envelope_check_kek('platform');
SELECT envelope_warm();
SELECT envelope_evict('t1');
SELECT envelope_evict_all();
SELECT envelope_encrypt(1, 'x');
SELECT envelope_blind_index('00000000-0000-0000-0000-00000000002a'::uuid, '\x00'::bytea);
SELECT envelope_encrypt('t1', NULL::text) IS NULL AS nothing_to_seal;
CREATE TABLE orgs (id text);
CREATE TRIGGER provision BEFORE INSERT ON orgs FOR EACH ROW EXECUTE FUNCTION envelope_provision('id');
INSERT INTO orgs VALUES ('t1');
SELECT count(*) FROM orgs;
DROP TABLE orgs;
SELECT * FROM envelope.cache;
SELECT * FROM envelope.cache_stats;
SELECT * FROM envelope.kms_stats;
\set VERBOSITY default
SELECT envelope_decrypt('t1', NULL) IS NULL AS null_needs_no_key;
SELECT kek, outcome FROM envelope.status;
SELECT severity, subject, finding, hint FROM envelope_doctor();
-- the tables can be restored and changed all the same
INSERT INTO envelope.tenants (tenant_id) VALUES ('t1');
BEGIN;
SELECT envelope_suspend_tenant('t1');
COMMIT;
SELECT tenant_id, state FROM envelope.tenants;
DELETE FROM envelope.tenants;
SHOW envelope.cache_ttl;
-- what sizes shared memory does not exist here, and loading the library late
-- changes nothing
SHOW envelope.cache_size;
LOAD 'envelope';
SHOW envelope.cache_size;
SET envelope.unreadable = 'null';
\set VERBOSITY sqlstate
SELECT envelope_encrypt('t1', 'x');
SELECT envelope_decrypt('t1', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'));
\set VERBOSITY default
SELECT envelope_alter_kek('platform', is_default => false), envelope_create_kek('other', 'local://other'), envelope_drop_kek('other');
CREATE ROLE regress_unloaded;
SELECT envelope_grant('regress_unloaded', 'use');
SELECT has_function_privilege('regress_unloaded', 'envelope_encrypt(text, text, text)', 'EXECUTE') AS granted;
SELECT envelope_revoke('regress_unloaded', 'use');
DROP ROLE regress_unloaded;
DROP EXTENSION envelope;
