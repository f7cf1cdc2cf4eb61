-- The key tables keep what seals values, whoever writes them; and memory is
-- true to them.

-- Nothing goes away.
SELECT message('DELETE FROM envelope.tenant_keys');
SELECT message('DELETE FROM envelope.tenants');
SELECT message('TRUNCATE envelope.tenant_keys');
SELECT message('TRUNCATE envelope.keks CASCADE');
SET session_replication_role = replica;
SELECT outcome('DELETE FROM envelope.tenant_keys') AS as_replica, outcome('TRUNCATE envelope.tenants CASCADE') AS truncate_as_replica;
SELECT outcome('DELETE FROM envelope.keks') AS used_kek, outcome('UPDATE envelope.keks SET uri = uri || ''x''') AS uri,
	outcome('UPDATE envelope.tenants SET tenant_id = tenant_id || ''x''') AS tenant_id,
	outcome('UPDATE envelope.tenant_keys SET key_check = decode(repeat(''00'', 32), ''hex'')') AS key_check,
	outcome('UPDATE envelope.tenant_keys SET state = ''destroyed'', wrapped_dek = NULL') AS state;
RESET session_replication_role;
SELECT message('DELETE FROM envelope.keks');
SELECT outcome('UPDATE envelope.keks SET name = name || ''x''') AS kek_name, outcome('TRUNCATE envelope.keks') AS keks,
	outcome('TRUNCATE envelope.tenants') AS tenants;
SELECT message('DROP EXTENSION envelope CASCADE');
SET client_min_messages = warning;
SELECT outcome('DROP SCHEMA envelope CASCADE') AS drop_schema, outcome('DROP TABLE envelope.tenant_keys') AS drop_table,
	outcome('DROP SCHEMA public CASCADE') AS drop_public;
RESET client_min_messages;
-- Only a superuser may say that they may go; and what is rolled back has not
-- gone, from memory neither.
CREATE ROLE regress_owner;
SET ROLE regress_owner;
SELECT outcome('SET envelope.allow_drop_extension = on') AS not_superuser;
RESET ROLE;
DROP ROLE regress_owner;
CREATE TABLE kept AS SELECT envelope_encrypt('t1', 'kept') AS v;
SELECT calls('unwrap') AS before \gset
BEGIN;
SET LOCAL envelope.allow_drop_extension = on;
\set VERBOSITY terse
SET LOCAL client_min_messages = warning;
DROP EXTENSION envelope CASCADE;
SELECT outcome($$SELECT 1 FROM envelope.tenants$$) AS dropped;
ROLLBACK;
\set VERBOSITY default
SELECT envelope_decrypt('t1', v), calls('unwrap') - :before AS calls FROM kept;
DROP TABLE kept;

-- What a key is bound to never changes.
SELECT c AS changed, outcome(format('UPDATE envelope.tenant_keys SET %s', c))
FROM unnest(array['key_id = key_id + 1', 'tenant_id = ''t2''', 'purpose = ''index''',
	'key_check = decode(repeat(''00'', 32), ''hex'')']) c;
SELECT c AS changed, outcome(format('UPDATE envelope.tenants SET %s', c))
FROM unnest(array['tenant_id = tenant_id || ''x''', 'state = ''gone''', 'state = NULL']) c;

-- Which state a key may go to, from each
SELECT envelope_create_tenant('g') > 0;
CREATE FUNCTION try_key_states() RETURNS TABLE (from_state text, to_state text, result text) LANGUAGE plpgsql AS $$
DECLARE
	n int := 0;
BEGIN
	FOREACH from_state IN ARRAY array['active', 'retired', 'scheduled', 'destroyed'] LOOP
		FOREACH to_state IN ARRAY array['active', 'retired', 'scheduled', 'destroyed'] LOOP
			n := n + 1;
			INSERT INTO envelope.tenants (tenant_id) VALUES ('state' || n);
			INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
				VALUES (n, 'state' || n, 'data', 'platform', CASE WHEN from_state <> 'destroyed' THEN '\x00'::bytea END,
					decode(repeat('00', 32), 'hex'), from_state);
			result := outcome(format('UPDATE envelope.tenant_keys SET state = %L, wrapped_dek = %s WHERE key_id = %s RETURNING ''allowed''',
				to_state, CASE WHEN to_state = 'destroyed' THEN 'NULL' ELSE '''\x00''' END, n));
			RETURN NEXT;
		END LOOP;
	END LOOP;
END
$$;
BEGIN;
SELECT * FROM try_key_states();
ROLLBACK;
CREATE FUNCTION try_tenant_states() RETURNS TABLE (from_state text, to_state text, result text) LANGUAGE plpgsql AS $$
DECLARE
	n int := 0;
BEGIN
	FOREACH from_state IN ARRAY array['active', 'suspended', 'scheduled', 'destroyed'] LOOP
		FOREACH to_state IN ARRAY array['active', 'suspended', 'scheduled', 'destroyed'] LOOP
			n := n + 1;
			INSERT INTO envelope.tenants (tenant_id, state) VALUES ('state' || n, from_state);
			result := outcome(format('UPDATE envelope.tenants SET state = %L WHERE tenant_id = %L RETURNING ''allowed''', to_state, 'state' || n));
			RETURN NEXT;
		END LOOP;
	END LOOP;
END
$$;
BEGIN;
SELECT * FROM try_tenant_states();
ROLLBACK;
SELECT outcome($$UPDATE envelope.tenant_keys SET wrapped_dek = NULL WHERE tenant_id = 'g'$$) AS active_without_key,
	outcome($$INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
		VALUES (1, 'g', 'data', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'active')$$) AS second_active,
	outcome($$INSERT INTO envelope.tenants (tenant_id) VALUES (repeat('x', 256))$$) AS long_tenant,
	outcome($$INSERT INTO envelope.tenants (tenant_id) VALUES ('')$$) AS empty_tenant;

-- A row that is changed counts at once, in a transaction and after it.
BEGIN;
CREATE TEMP TABLE kept AS SELECT envelope_encrypt('g', 'x') AS v;
UPDATE envelope.tenants SET state = 'suspended' WHERE tenant_id = 'g';
SELECT outcome($$SELECT envelope_decrypt('g', v) FROM kept$$) AS suspended;
UPDATE envelope.tenants SET state = 'active' WHERE tenant_id = 'g';
SELECT outcome($$SELECT envelope_decrypt('g', v) FROM kept$$) AS resumed;
UPDATE envelope.tenant_keys SET state = 'retired' WHERE tenant_id = 'g' AND purpose = 'data';
SELECT outcome($$SELECT envelope_decrypt('g', v) FROM kept$$) AS retired_opens,
	outcome($$SELECT envelope_encrypt('g', 'y')$$) AS retired_seals,
	outcome($$SELECT envelope_blind_index('g', 'y') IS NOT NULL$$) AS index_key_serves;
UPDATE envelope.tenant_keys SET state = 'scheduled' WHERE tenant_id = 'g' AND purpose = 'data';
SELECT outcome($$SELECT envelope_decrypt('g', v) FROM kept$$) AS scheduled_opens;
SAVEPOINT before;
UPDATE envelope.tenant_keys SET state = 'destroyed', wrapped_dek = NULL, kek = NULL WHERE tenant_id = 'g' AND purpose = 'data';
SELECT outcome($$SELECT envelope_decrypt('g', v) FROM kept$$) AS destroyed;
ROLLBACK TO before;
SELECT outcome($$SELECT envelope_decrypt('g', v) FROM kept$$) AS rolled_back;
UPDATE envelope.tenant_keys SET state = 'destroyed', wrapped_dek = NULL, kek = NULL WHERE tenant_id = 'g' AND purpose = 'data';
COMMIT;
SELECT message($$SELECT envelope_decrypt('g', v) FROM kept$$) AS destroyed;
SELECT count(*) AS in_memory FROM envelope.cache WHERE tenant_id = 'g' AND purpose = 'data';
SELECT severity, subject, finding FROM envelope_doctor() WHERE subject = 'tenant g';
UPDATE envelope.tenants SET state = 'scheduled' WHERE tenant_id = 'g';
SELECT message($$SELECT envelope_encrypt('g', 'x')$$) AS scheduled_tenant, outcome($$SELECT envelope_suspend_tenant('g')$$) AS suspend_scheduled;
UPDATE envelope.tenants SET state = 'destroyed' WHERE tenant_id = 'g';
SELECT message($$SELECT envelope_create_tenant('g')$$) AS again, outcome($$SELECT envelope_resume_tenant('g')$$) AS resume,
	outcome($$SELECT envelope_encrypt('g', 'x')$$) AS seal;

-- Swapping wrapped keys between tenants gives neither the other's key.
CREATE TEMP TABLE before AS SELECT envelope_encrypt('t1', 'one') AS v1, envelope_encrypt('t2', 'two') AS v2;
BEGIN;
UPDATE envelope.tenant_keys k SET wrapped_dek = o.wrapped_dek, kek_version = o.kek_version
FROM envelope.tenant_keys o
WHERE k.purpose = 'data' AND o.purpose = 'data' AND (k.tenant_id, o.tenant_id) IN (('t1', 't2'), ('t2', 't1'));
SELECT envelope_evict('t1') >= 0, envelope_evict('t2') >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v1) FROM before$$) AS one,
	outcome($$SELECT envelope_decrypt('t2', v2) FROM before$$) AS two,
	outcome($$SELECT envelope_encrypt('t1', 'x')$$) AS seal;
ROLLBACK;
SELECT envelope_evict('t1') >= 0, envelope_evict('t2') >= 0;
SELECT envelope_decrypt('t1', v1), envelope_decrypt('t2', v2) FROM before;

-- Nor do the data and the index key of one tenant stand in for each other.
CREATE TEMP TABLE own AS SELECT envelope_encrypt('t1', 'random') AS v, envelope_encrypt_deterministic('t1', 'deterministic') AS d;
BEGIN;
UPDATE envelope.tenant_keys k SET wrapped_dek = o.wrapped_dek
FROM envelope.tenant_keys o WHERE k.tenant_id = 't1' AND o.tenant_id = 't1' AND k.purpose <> o.purpose;
SELECT envelope_evict('t1') > 0 AS evicted;
SELECT outcome($$SELECT envelope_decrypt('t1', v) FROM own$$) AS data, outcome($$SELECT envelope_decrypt('t1', d) FROM own$$) AS index,
	outcome($$SELECT envelope_encrypt('t1', 'x')$$) AS seal, outcome($$SELECT envelope_blind_index('t1', 'x')$$) AS term;
ROLLBACK;
-- nor does a key that is copied for another tenant, with its check or without
BEGIN;
INSERT INTO envelope.tenants (tenant_id) VALUES ('thief');
INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, kek_version, wrapped_dek, key_check, state)
	SELECT CASE purpose WHEN 'data' THEN 1 ELSE 2 END, 'thief', purpose, kek, kek_version, wrapped_dek,
		CASE purpose WHEN 'data' THEN key_check ELSE decode(repeat('00', 32), 'hex') END, state
	FROM envelope.tenant_keys WHERE tenant_id = 't1';
SELECT outcome($$SELECT envelope_encrypt('thief', 'x')$$) AS seal, outcome($$SELECT envelope_blind_index('thief', 'x')$$) AS term,
	outcome($$SELECT envelope_decrypt('thief', v) FROM own$$) AS open,
	outcome($$SELECT envelope_decrypt('thief', set_byte(overlay(v PLACING '\x0000000000000001' FROM 5), 0, 225)) FROM own$$) AS open_under_its_id;
ROLLBACK;

-- Rows that no function would write: an error, whatever is in them.
BEGIN;
INSERT INTO envelope.tenants (tenant_id) VALUES ('odd1'), ('odd2'), ('odd3');
INSERT INTO envelope.keks (name, uri) VALUES (repeat('k', 100), 'local://platform'), ('pigeon', 'carrier-pigeon://x'), ('far', 'local://' || repeat('x', 100000));
INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state) VALUES
	(1, 'odd1', 'data', repeat('k', 100), '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(2, 'odd2', 'data', 'pigeon', '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(3, 'odd3', 'data', 'far', '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(4, 'odd1', 'index', 'platform', decode(repeat('00', 6144), 'hex'), decode(repeat('00', 32), 'hex'), 'active'),
	(5, 'odd2', 'index', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'active'),
	(6, 'odd3', 'index', 'no such KEK', '\x00', decode(repeat('00', 32), 'hex'), 'active');
SELECT tenant, outcome(format('SELECT envelope_encrypt(%L, %L)', tenant, 'x')) AS seal, outcome(format('SELECT envelope_blind_index(%L, %L)', tenant, 'x')) AS term
FROM unnest(array['odd1', 'odd2', 'odd3']) tenant;
SELECT outcome($$INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
		VALUES (7, 'odd1', 'data', 'platform', decode(repeat('00', 6145), 'hex'), decode(repeat('00', 32), 'hex'), 'retired')$$) AS large_key,
	outcome($$INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
		VALUES (7, 'odd1', 'data', 'platform', '\x00', '\x00', 'retired')$$) AS short_check,
	outcome($$INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
		VALUES (7, 'odd1', 'other', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'retired')$$) AS purpose,
	outcome($$INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
		VALUES (7, 'odd1', 'data', NULL, '\x00', decode(repeat('00', 32), 'hex'), 'retired')$$) AS no_kek,
	outcome($$INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
		VALUES (7, 'odd1', 'data', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'destroyed')$$) AS destroyed_with_key,
	outcome($$INSERT INTO envelope.keks (name, uri, is_default) VALUES ('second', 'local://x', true)$$) AS second_default;
ROLLBACK;
SELECT envelope_evict('t1') >= 0;
SELECT envelope_decrypt('t1', v), envelope_decrypt('t1', d) FROM own;

-- Disabled triggers come back as ALWAYS, and doctor sees them missing.
ALTER TABLE envelope.tenants DISABLE TRIGGER ALL;
SELECT severity, subject, finding FROM envelope_doctor() WHERE subject LIKE 'table%' ORDER BY 3;
ALTER TABLE envelope.tenants ENABLE TRIGGER ALL;
ALTER TABLE envelope.tenant_keys DISABLE TRIGGER guard;
ALTER TABLE envelope.tenant_keys ENABLE TRIGGER guard;
ALTER TABLE envelope.keks DISABLE TRIGGER USER;
ALTER TABLE envelope.keks ENABLE TRIGGER USER;
ALTER TABLE envelope.keks ENABLE REPLICA TRIGGER guard;
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
WHERE tgrelid IN ('envelope.keks'::regclass, 'envelope.tenants'::regclass, 'envelope.tenant_keys'::regclass)
	AND NOT tgisinternal ORDER BY tgrelid::regclass::text COLLATE "C", tgname;
SELECT * FROM envelope_doctor();
SELECT outcome('SELECT envelope.guard_tenants()') AS called;

-- Only an active key seals, even in a session that uses no index of ours.
INSERT INTO envelope.tenant_keys (key_id, tenant_id, purpose, kek, wrapped_dek, key_check, state)
	SELECT 100 + n, 'indexless', 'data', 'platform', '\x00', decode(repeat('00', 32), 'hex'), 'retired'
	FROM generate_series(1, 3) n;
SELECT envelope_create_tenant('indexless') AS active \gset
\c -reuse-previous=on "options=-cignore_system_indexes=on"
SHOW ignore_system_indexes;
SELECT envelope_key_id(envelope_encrypt('indexless', 'x')) = :active AS under_the_active_key;
\c -reuse-previous=on "options=-cignore_system_indexes=off"
