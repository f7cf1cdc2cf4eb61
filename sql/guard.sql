-- The key tables keep what seals values, whoever writes them; and memory is
-- true to them.

-- Nothing goes away.
SELECT message('DELETE FROM envelope.tenant_keys');
SELECT message('DELETE FROM envelope.tenants');
SELECT message('TRUNCATE envelope.tenant_keys');
SELECT message('TRUNCATE envelope.keks CASCADE');
SET session_replication_role = replica;
SELECT outcome('DELETE FROM envelope.tenant_keys') AS as_replica, outcome('TRUNCATE envelope.tenants CASCADE') AS truncate_as_replica;
RESET session_replication_role;
SELECT message('DROP EXTENSION envelope CASCADE');
SELECT outcome('DROP SCHEMA envelope CASCADE') AS drop_schema, outcome('DROP TABLE envelope.tenant_keys') AS drop_table;

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
