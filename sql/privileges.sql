-- Who may do what: nobody anything but the two functions that need no key, until
-- it is granted; a level gives what belongs to it and nothing else.

CREATE ROLE regress_someone;

-- What a role may do with the extension's objects
CREATE FUNCTION allowed(role name) RETURNS TABLE (privilege text, object text) LANGUAGE sql AS $$
	SELECT a.privilege, o.object
	FROM (SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object
		FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
		WHERE e.extname = 'envelope' AND d.deptype = 'e') o
	CROSS JOIN (VALUES ('EXECUTE'), ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER'), ('USAGE'), ('CREATE')) a (privilege)
	WHERE CASE
		WHEN o.classid = 'pg_proc'::regclass THEN a.privilege = 'EXECUTE' AND has_function_privilege(role, o.objid, 'EXECUTE')
		WHEN o.classid = 'pg_namespace'::regclass THEN a.privilege IN ('USAGE', 'CREATE') AND has_schema_privilege(role, o.objid, a.privilege)
		WHEN o.classid = 'pg_class'::regclass AND (SELECT relkind IN ('r', 'v') FROM pg_class WHERE oid = o.objid)
			THEN a.privilege NOT IN ('EXECUTE', 'USAGE', 'CREATE') AND has_table_privilege(role, o.objid, a.privilege)
		ELSE false END
	ORDER BY o.object COLLATE "C", a.privilege COLLATE "C"
$$;

SELECT * FROM allowed('regress_someone');
SELECT message($$SELECT envelope_grant('regress_someone', 'everything')$$);
SELECT outcome($$SELECT envelope_grant('regress_nobody', 'use')$$) AS no_such_role, outcome($$SELECT envelope_grant('public', 'use')$$) AS public;

SELECT envelope_grant('regress_someone', 'use');
SELECT * FROM allowed('regress_someone');
SELECT envelope_revoke('regress_someone', 'use'), envelope_grant('regress_someone', 'operate');
SELECT * FROM allowed('regress_someone');
SELECT envelope_revoke('regress_someone', 'operate'), envelope_grant('regress_someone', 'admin');
SELECT * FROM allowed('regress_someone');
SELECT envelope_revoke('regress_someone', 'admin');
SELECT * FROM allowed('regress_someone');
-- Granting twice is granting once; what two levels share goes with the last.
SELECT envelope_grant('regress_someone', 'use'), envelope_grant('regress_someone', 'use'), envelope_revoke('regress_someone', 'use'), envelope_revoke('regress_someone', 'use');
SELECT envelope_grant('regress_someone', 'operate'), envelope_grant('regress_someone', 'admin'), envelope_revoke('regress_someone', 'admin');
SELECT array_agg(privilege) AS shared FROM allowed('regress_someone') WHERE object = 'schema envelope';
SELECT envelope_grant('regress_someone', 'admin'), envelope_revoke('regress_someone', 'operate');
SELECT array_agg(privilege) AS shared FROM allowed('regress_someone') WHERE object = 'schema envelope';
SELECT envelope_revoke('regress_someone', 'admin');
SELECT count(*) AS left_over FROM allowed('regress_someone');
-- a role of any name; a level is exact
CREATE ROLE "regress Odd""name";
SELECT envelope_grant('regress Odd"name', 'use');
SELECT count(*) > 2 AS granted FROM allowed('regress Odd"name');
SELECT envelope_revoke('regress Odd"name', 'use');
SELECT count(*) AS revoked FROM allowed('regress Odd"name');
DROP ROLE "regress Odd""name";
SELECT outcome($$SELECT envelope_grant('regress_someone', 'USE')$$) AS upper_case, outcome($$SELECT envelope_grant('regress_someone', '')$$) AS empty,
	outcome($$SELECT envelope_grant('regress_someone', 'use''; DROP')$$) AS quoted,
	envelope_grant(NULL, 'use') IS NULL AS no_role, envelope_grant('regress_someone', NULL) IS NULL AS no_level;
SELECT count(*) AS nothing_granted FROM allowed('regress_someone');

-- Levels share nothing but the schema; and but for triggers, all is in one.
SELECT object, count(*) FROM envelope.privileges() GROUP BY object HAVING count(*) > 1;
SELECT envelope_grant('regress_someone', 'use'), envelope_grant('regress_someone', 'operate'), envelope_grant('regress_someone', 'admin');
SELECT pg_describe_object(d.classid, d.objid, 0) AS in_no_level
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'envelope' AND d.deptype = 'e'
	AND (d.classid = 'pg_proc'::regclass OR d.classid = 'pg_class'::regclass AND (SELECT relkind IN ('r', 'v') FROM pg_class WHERE oid = d.objid))
	AND pg_describe_object(d.classid, d.objid, 0) NOT IN (SELECT object FROM allowed('regress_someone'))
ORDER BY 1;

-- Without a level: not even a look, and no setting that is a superuser's.
SELECT envelope_revoke('regress_someone', 'use'), envelope_revoke('regress_someone', 'operate'), envelope_revoke('regress_someone', 'admin');
SET ROLE regress_someone;
SELECT outcome('SELECT 1 FROM envelope.cache') AS cache, outcome('SELECT 1 FROM envelope.status') AS status, outcome('SELECT * FROM envelope_doctor()') AS doctor,
	outcome($$SELECT envelope_grant('regress_someone', 'use')$$) AS grant_itself, outcome($$SELECT envelope_create_tenant('x')$$) AS create_tenant,
	outcome('SELECT envelope_evict_all()') AS evict_all;
SELECT outcome('SHOW envelope.local_kek_directory') AS directory, outcome('SHOW envelope.local_kek_faults') AS faults,
	outcome('SET envelope.allow_drop_extension = on') AS allow_drop;
ALTER SYSTEM SET envelope.local_kek_faults = 'platform:denied';
ALTER SYSTEM SET envelope.local_kek_directory = '/';
SELECT envelope_is_sealed('\x00'), envelope_key_id('\x00') IS NULL AS key_id;
-- whoever signs up needs no level, but whoever makes the trigger does
CREATE TABLE pg_temp.mine (id text);
CREATE TRIGGER provision BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION envelope_provision('id');
RESET ROLE;
CREATE TABLE signups (id text);
CREATE TRIGGER provision BEFORE INSERT ON signups FOR EACH ROW EXECUTE FUNCTION envelope_provision('id');
GRANT INSERT ON signups TO regress_someone;
SET ROLE regress_someone;
INSERT INTO signups VALUES ('signed up');
RESET ROLE;
SELECT tenant_id, count(*) AS keys FROM envelope.tenant_keys WHERE tenant_id = 'signed up' GROUP BY 1;
DROP TABLE signups;
SELECT envelope_grant('regress_someone', 'admin');

-- Each level works as such.
SET ROLE regress_someone;
SELECT envelope_create_tenant('by admin') > 0 AS create_tenant, outcome($$SELECT envelope_encrypt('by admin', 'x')$$) AS seal,
	outcome($$SELECT envelope_evict('by admin')$$) AS evict, outcome($$UPDATE envelope.tenants SET state = 'suspended'$$) AS update_table;
SELECT envelope_suspend_tenant('by admin'), envelope_resume_tenant('by admin');
SELECT count(*) > 0 AS select_keys FROM envelope.tenant_keys;
SELECT envelope_grant('regress_someone', 'use');
SELECT envelope_decrypt('by admin', envelope_encrypt('by admin', 'granted to itself'));
RESET ROLE;
SELECT envelope_revoke('regress_someone', 'use'), envelope_revoke('regress_someone', 'admin'), envelope_grant('regress_someone', 'operate');
SET ROLE regress_someone;
SELECT ok FROM envelope_check_kek('platform');
SELECT envelope_evict('by admin') >= 0 AS evict, envelope_warm(array['by admin']) > 0 AS warm;
SELECT count(*) > 0 AS cache FROM envelope.cache;
SELECT count(*) AS status FROM envelope.status WHERE kek = 'platform';
SELECT count(*) > 0 AS kms_stats FROM envelope.kms_stats;
SELECT size > 0 AS cache_stats FROM envelope.cache_stats;
SELECT severity, subject FROM envelope_doctor() WHERE subject <> 'KEK eu';
SELECT outcome('SELECT 1 FROM envelope.tenant_keys') AS keys, outcome($$SELECT envelope_create_tenant('x')$$) AS create_tenant,
	outcome($$SELECT envelope_decrypt('t1', '\x')$$) AS open;
RESET ROLE;
SELECT envelope_revoke('regress_someone', 'operate');

-- Nothing of the caller's is run when the functions write.
CREATE SCHEMA trap AUTHORIZATION regress_someone;
SELECT envelope_grant('regress_someone', 'admin');
SET ROLE regress_someone;
CREATE FUNCTION trap.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped by %', current_user; END$$;
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq);
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped by %', current_user; END$$;
CREATE FUNCTION trap.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped by %', current_user; END$$;
CREATE FUNCTION trap.count(text) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped by %', current_user; END$$;
SET search_path = trap, pg_catalog, public;
SELECT envelope_create_tenant('not trapped') OPERATOR(pg_catalog.>) 0;
SELECT envelope_suspend_tenant('not trapped'), envelope_resume_tenant('not trapped');
SELECT envelope_create_kek('other', 'local://other'), envelope_alter_kek('other', is_default => false), envelope_drop_kek('other');
SELECT envelope_grant('regress_someone', 'operate');
SELECT severity, subject FROM envelope_doctor() WHERE subject <> 'KEK eu';
SELECT envelope_warm(array['not trapped']) OPERATOR(pg_catalog.>=) 0;
CREATE TABLE trap.signups (id varchar(20), kek text);
CREATE TRIGGER provision AFTER INSERT ON trap.signups FOR EACH ROW EXECUTE FUNCTION envelope_provision('id', 'kek');
INSERT INTO trap.signups VALUES ('signed up in a trap', 'platform');
SELECT outcome($$UPDATE envelope.tenants SET state = 'suspended'$$) AS still_no_owner, current_user;
RESET search_path;
RESET ROLE;
DROP SCHEMA trap CASCADE;
SELECT envelope_revoke('regress_someone', 'admin'), envelope_revoke('regress_someone', 'operate');

-- Loose default privileges do not loosen ours.
CREATE DATABASE regress_loose;
\c regress_loose
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC, regress_someone;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_someone;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, regress_someone;
CREATE SCHEMA "with ""quotes' in it";
CREATE EXTENSION envelope SCHEMA public;
SELECT has_function_privilege('regress_someone', p.oid, 'EXECUTE') AS executable, count(*) > 2 AS many, min(p.proname) AS first, max(p.proname) AS last
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'envelope' GROUP BY 1 ORDER BY 1 DESC;
SELECT c.relname FROM pg_class c WHERE relnamespace = 'envelope'::regnamespace AND relkind IN ('r', 'v')
	AND has_table_privilege('regress_someone', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
SELECT has_schema_privilege('regress_someone', 'envelope', 'USAGE') AS usage, has_schema_privilege('regress_someone', 'envelope', 'CREATE') AS create;
DROP EXTENSION envelope;
-- in a schema of its own, whatever its name
CREATE SCHEMA "Crypto";
CREATE EXTENSION envelope SCHEMA "Crypto";
SELECT "Crypto".envelope_grant('regress_someone', 'use');
SELECT has_function_privilege('regress_someone', '"Crypto".envelope_encrypt(text, text, text)', 'EXECUTE') AS granted;
SELECT * FROM "Crypto".envelope_doctor();
\c contrib_regression
DROP DATABASE regress_loose;
DROP OWNED BY regress_someone;
DROP ROLE regress_someone;
