-- Registering columns, rotating keys, and what is refused.

SELECT envelope_create_tenant('rot') > 0 AS made;
CREATE TABLE rdocs (id int PRIMARY KEY, tenant_id text, kind text, body bytea, other text, whole int GENERATED ALWAYS AS (id) STORED);
INSERT INTO rdocs SELECT g, 'rot', 'k', envelope_encrypt('rot', 'body ' || g, 'rdocs.k') FROM generate_series(1, 5) g;
SELECT outcome($$SELECT envelope_register_column('rdocs', 'other', 'tenant_id')$$) AS no_bytea,
	outcome($$SELECT envelope_register_column('rdocs', 'body', 'body')$$) AS no_tenant,
	outcome($$SELECT envelope_register_column('rdocs', 'nothing', 'tenant_id')$$) AS no_column,
	outcome($$SELECT envelope_register_column('envelope.tenant_keys', 'wrapped_dek', 'tenant_id')$$) AS ours,
	outcome($$SELECT envelope_register_column('pg_statistic', 'stavalues1', 'tenant_id')$$) AS catalog,
	outcome($$SELECT envelope_register_column('rdocs', 'body', 'tenant_id', 'a', 'b')$$) AS both,
	outcome($$SELECT envelope_register_column('rdocs', NULL, 'tenant_id')$$) AS no_name,
	outcome($$SELECT envelope_unregister_column('rdocs', 'body')$$) AS unknown;
-- What is published can be updated.
SET client_min_messages = error;
CREATE PUBLICATION published FOR TABLE rdocs;
RESET client_min_messages;
ALTER TABLE rdocs REPLICA IDENTITY NOTHING;
SELECT outcome($$SELECT envelope_register_column('rdocs', 'body', 'tenant_id')$$) AS no_identity;
DROP PUBLICATION published;
ALTER TABLE rdocs REPLICA IDENTITY DEFAULT;
SELECT e AS expression, outcome(format($$SELECT envelope_register_column('rdocs', 'body', 'tenant_id', context_expression => %L)$$, e))
FROM unnest(array['''x'' FROM rdocs', '1); DROP TABLE rdocs; SELECT (1', 'a, b', 'nothing || ''x''', 'count(*)::text', '(SELECT ''x'')', 'body', '']) e;
SELECT envelope_register_column('rdocs', 'body', 'tenant_id', context_expression => $$'rdocs.' || kind$$);
SELECT outcome($$SELECT envelope_register_column('rdocs', 'body', 'tenant_id')$$) AS twice;
SELECT table_name, column_name, tenant_column, context, context_expression FROM envelope.registered_columns WHERE table_name = 'public.rdocs';
SELECT pg_get_triggerdef(oid) ~ 'WHEN' AS conditional, tgenabled FROM pg_trigger WHERE tgrelid = 'rdocs'::regclass;

-- In a transaction, and rolled back
BEGIN;
SELECT rotate_tenant_dek('rot') > 0 AS rotated;
SELECT count(*), count(*) FILTER (WHERE k.state = 'active') AS under_active, min(envelope_decrypt('rot', body, 'rdocs.k'))
FROM rdocs JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(body);
ROLLBACK;
SELECT count(*) AS keys FROM envelope.tenant_keys WHERE tenant_id = 'rot';
SELECT outcome($$CALL envelope_rotate_tenant('rot')$$) AS in_function,
	outcome($$SELECT rotate_tenant_dek('nobody')$$) AS unknown,
	rotate_tenant_dek(NULL::text) IS NULL AS no_tenant;
CALL envelope_rotate_tenant('rot', 0);
CALL envelope_rotate_tenant('rot', 10, '-1 s');
CALL envelope_rotate_tenant(NULL::text);
CALL envelope_rotate_tenant('nobody');
CALL envelope_rotate_tenant('rot', 2);
SELECT table_name, column_name, key_state, "values", failures FROM envelope_verify_tenant('rot') WHERE table_name = 'public.rdocs';
SELECT phase, proof->'columns'->0->>'guarded' AS guarded, jsonb_array_length(proof->'keys') AS keys FROM envelope.rotations WHERE tenant_id = 'rot' ORDER BY rotation_id DESC LIMIT 1;

-- A new key now, the rest later
SELECT rotate_tenant_dek('rot', false) > 0 AS flipped;
SELECT phase, rows_reencrypted, running FROM envelope.rotation_progress WHERE tenant_id = 'rot';
SELECT count(*) AS keys FROM envelope.tenant_keys WHERE tenant_id = 'rot' AND purpose = 'data';
SELECT * FROM envelope_doctor() WHERE subject = 'tenant rot';
CALL envelope_rotate_tenant('rot');
SELECT count(*) AS keys FROM envelope.tenant_keys WHERE tenant_id = 'rot' AND purpose = 'data';
SELECT count(*) AS unfinished FROM envelope.rotation_progress;

-- Retired keys go when nothing needs them; what opened then does not.
CREATE TABLE aside AS SELECT body FROM rdocs WHERE id = 1;
CALL envelope_rotate_tenant('rot');
SELECT envelope_decrypt('rot', body, 'rdocs.k') FROM aside;
\set VERBOSITY terse
SET client_min_messages = error;
CALL envelope_destroy_retired_keys('rot');
RESET client_min_messages;
\set VERBOSITY default
SELECT k.state FROM aside JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(body);
CREATE TABLE away AS SELECT encode(body, 'hex') AS hex FROM aside;
DROP TABLE aside;
CALL envelope_destroy_retired_keys('rot');
SELECT state, count(*) FROM envelope.tenant_keys WHERE tenant_id = 'rot' AND purpose = 'data' GROUP BY 1 ORDER BY 1;
SELECT message($$SELECT envelope_decrypt('rot', decode(hex, 'hex'), 'rdocs.k') FROM away$$) ~ 'was destroyed' AS destroyed;
SELECT outcome($$UPDATE rdocs SET body = decode(hex, 'hex') FROM away WHERE id = 2 RETURNING id$$) AS guarded, outcome($$INSERT INTO rdocs SELECT 9, 'rot', 'k', decode(hex, 'hex') FROM away RETURNING id$$) AS inserted;
SET session_replication_role = replica;
SELECT outcome($$INSERT INTO rdocs SELECT 9, 'rot', 'k', decode(hex, 'hex') FROM away RETURNING id$$) AS as_replica;
RESET session_replication_role;
DROP TABLE away;

-- A guard that does not fire always keeps keys alive, and doctor sees it; so it
-- does one that has gone.
ALTER TABLE rdocs DISABLE TRIGGER USER;
CALL envelope_rotate_tenant('rot');
CALL envelope_destroy_retired_keys('rot');
SELECT severity, subject, regexp_replace(finding, '\d+', 'N') AS finding, regexp_replace(hint, '\d+', 'N') AS hint FROM envelope_doctor() WHERE subject = 'table public.rdocs';
SELECT tgname AS guard FROM pg_trigger WHERE tgrelid = 'rdocs'::regclass \gset
ALTER TABLE rdocs ENABLE ALWAYS TRIGGER :"guard";
CALL envelope_destroy_retired_keys('rot');
DROP TRIGGER :"guard" ON rdocs;
SELECT severity, subject, finding, hint FROM envelope_doctor() WHERE subject = 'table public.rdocs';
SELECT envelope_register_column('rdocs', 'body', 'tenant_id', context_expression => $$'rdocs.' || kind$$);
SELECT count(*) AS registrations FROM envelope.registered_columns WHERE table_name = 'public.rdocs';

-- ALTER TABLE ... ENABLE TRIGGER, with which a restore ends that has disabled
-- triggers, leaves the guard ALWAYS, whoever gives it; so it does on partitions.
CREATE ROLE regress_docs_owner;
GRANT CREATE ON SCHEMA public TO regress_docs_owner;
SET ROLE regress_docs_owner;
CREATE TABLE rparts (id int, tenant_id text, body bytea) PARTITION BY LIST (id);
CREATE TABLE rparts_1 PARTITION OF rparts FOR VALUES IN (1);
CREATE TABLE rparts_2 (body bytea, id int, tenant_id text);
ALTER TABLE rparts ATTACH PARTITION rparts_2 FOR VALUES IN (2);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER theirs BEFORE INSERT ON rparts_1 FOR EACH ROW EXECUTE FUNCTION nothing();
RESET ROLE;
CREATE FUNCTION of_superusers(int) RETURNS text LANGUAGE sql IMMUTABLE RETURN 'p';
REVOKE EXECUTE ON FUNCTION of_superusers FROM PUBLIC;
SELECT outcome($$SELECT envelope_register_column('rparts', 'body', 'tenant_id', context_expression => 'lower(of_superusers(id))')$$) AS not_for_the_owner;
DROP FUNCTION of_superusers;
SELECT envelope_register_column('rparts', 'body', 'tenant_id', 'p');
CREATE VIEW guards AS SELECT string_agg(format('%s %s %s', tgrelid::regclass, CASE WHEN tgname LIKE 'zzz%' THEN 'guard' ELSE tgname END, tgenabled), ', ' ORDER BY tgrelid, tgname) AS guards FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'rparts%';
GRANT SELECT ON guards TO regress_docs_owner;
SELECT * FROM guards;
SET ROLE regress_docs_owner;
ALTER TABLE rparts_1 DISABLE TRIGGER ALL;
ALTER TABLE rparts_2 DISABLE TRIGGER USER;
SELECT * FROM guards;
ALTER TABLE rparts_1 ENABLE TRIGGER ALL;
ALTER TABLE rparts_2 ENABLE TRIGGER USER;
RESET ROLE;
SELECT * FROM guards;
ALTER TABLE rparts DISABLE TRIGGER ALL;
ALTER TABLE rparts ENABLE TRIGGER ALL;
SELECT * FROM guards;
SELECT tgname AS guard FROM pg_trigger WHERE tgrelid = 'rparts'::regclass \gset
ALTER TABLE rparts ENABLE REPLICA TRIGGER :"guard";
ALTER TABLE ONLY rparts ENABLE TRIGGER :"guard";
SELECT * FROM guards;
SELECT * FROM envelope_doctor() WHERE subject LIKE 'table rparts%';
SELECT envelope_unregister_column('rparts', 'body');
DROP VIEW guards;
DROP TABLE rparts;
DROP FUNCTION nothing();
DROP OWNED BY regress_docs_owner;
DROP ROLE regress_docs_owner;

-- Triggers that fire all the same and keep what was there: named, and not tried
-- for ever.
CREATE FUNCTION keep_body() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.id = 2 THEN
		RETURN NULL;
	END IF;
	NEW.body := CASE OLD.id WHEN 1 THEN OLD.body ELSE NEW.body END;
	RETURN NEW;
END $$;
CREATE TRIGGER kept BEFORE UPDATE ON rdocs FOR EACH ROW EXECUTE FUNCTION keep_body();
ALTER TABLE rdocs ENABLE ALWAYS TRIGGER kept;
\set VERBOSITY terse
CALL envelope_rotate_tenant('rot', 100);
SELECT outcome($$SELECT rotate_tenant_dek('rot')$$) AS in_function;
\set VERBOSITY default
DROP TRIGGER kept ON rdocs;
DROP FUNCTION keep_body();
CALL envelope_rotate_tenant('rot', 1);
SELECT key_state, "values" FROM envelope_verify_tenant('rot') WHERE table_name = 'public.rdocs';

-- What a function in PL/pgSQL throws ends a job of maintenance, and not the rest.
CREATE FUNCTION thrower() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not today'; END$$;
CREATE TRIGGER thrower BEFORE UPDATE ON rdocs FOR EACH ROW EXECUTE FUNCTION thrower();
ALTER TABLE rdocs ENABLE ALWAYS TRIGGER thrower;
SELECT envelope_set_rotation_interval('rot', '1 millisecond');
\set VERBOSITY terse
CALL envelope_run_maintenance();
\set VERBOSITY default
SELECT phase, error FROM envelope.rotations WHERE tenant_id = 'rot' ORDER BY rotation_id DESC LIMIT 1;
DROP TRIGGER thrower ON rdocs;
DROP FUNCTION thrower();
SELECT envelope_set_rotation_interval('rot', NULL);
CALL envelope_run_maintenance();
SELECT phase, error FROM envelope.rotations WHERE tenant_id = 'rot' ORDER BY rotation_id DESC LIMIT 1;

-- A row that cannot be updated is not shown to whoever rotates.
ALTER TABLE rdocs ADD CONSTRAINT no_first CHECK (id <> 1) NOT VALID;
CALL envelope_rotate_tenant('rot');
-- Nor does it hold up other tenants that are due.
SELECT envelope_set_rotation_interval(t, '1 millisecond') FROM unnest(array['rot', 't1', 't2']) t;
\set VERBOSITY terse
CALL envelope_run_maintenance();
\set VERBOSITY default
SELECT DISTINCT ON (tenant_id COLLATE "C") tenant_id, phase, error FROM envelope.rotations
WHERE tenant_id IN ('rot', 't1', 't2') ORDER BY tenant_id COLLATE "C", rotation_id DESC;
SELECT envelope_set_rotation_interval(t, NULL) FROM unnest(array['rot', 't1', 't2']) t;
ALTER TABLE rdocs DROP CONSTRAINT no_first;
CALL envelope_rotate_tenant('rot');

-- Suspended and destroyed tenants are not rotated.
SELECT envelope_suspend_tenant('t2');
CALL envelope_rotate_tenant('t2');
SELECT outcome($$SELECT rotate_tenant_dek('t2')$$) AS suspended;
SELECT envelope_resume_tenant('t2');

-- The log of it: added to, and that is all.
SELECT event, count(*) > 0 AS there FROM envelope.audit_log
WHERE event ~ '^(tenant|column|rotation|key)\.' GROUP BY event ORDER BY event COLLATE "C";
SELECT outcome('DELETE FROM envelope.audit_log') AS deleted, outcome('UPDATE envelope.audit_log SET login = ''x''') AS updated, outcome('TRUNCATE envelope.audit_log') AS truncated;
BEGIN;
SELECT envelope_suspend_tenant('t2');
ROLLBACK;
SELECT count(*) AS suspensions FROM envelope.audit_log WHERE tenant_id = 't2' AND event = 'tenant.suspend';
CREATE ROLE regress_operator;
SELECT envelope_grant('regress_operator', 'operate');
SET ROLE regress_operator;
SELECT rotate_tenant_dek('t2') > 0 AS operated;
RESET ROLE;
SELECT event, login = session_user AS login, role FROM envelope.audit_log WHERE tenant_id = 't2' ORDER BY audit_id DESC LIMIT 1;
SELECT envelope_revoke('regress_operator', 'operate');
DROP ROLE regress_operator;

SELECT envelope_unregister_column('rdocs', 'body');
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid = 'rdocs'::regclass;
DROP TABLE rdocs;
