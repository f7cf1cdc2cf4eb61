-- Searchable columns: statements that ask for a value use the index on terms, as
-- they use that on values of the twin, and find the same rows.

SET search_path = twins, public;
SET client_min_messages = warning;

DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_indexes WHERE schemaname = 'twins' AND indexdef LIKE '%email__term%') THEN
		ALTER TABLE customers DROP CONSTRAINT customers_tenant_id_email_key,
			ADD CONSTRAINT customers_tenant_id_email_key UNIQUE (tenant_id, email__term);
	END IF;
END
$$;
INSERT INTO customers (id, tenant_id, email, ssn)
	SELECT i, 't' || 1 + i % 2, 'user' || i || '@example.com', i FROM generate_series(100, 4000) i;
INSERT INTO twin (id, tenant_id, email, ssn)
	SELECT i, 't' || 1 + i % 2, 'user' || i || '@example.com', i FROM generate_series(100, 4000) i;
INSERT INTO orders SELECT i, i, 't' || 1 + i % 2, 'user' || i || '@example.com', i FROM generate_series(100, 200) i;
ANALYZE customers;
ANALYZE twin;
ANALYZE orders;

-- How a statement is answered: whether by the index on terms, and whether as
-- many rows are expected as for the twin.
CREATE FUNCTION plan_of(statement text, OUT plan jsonb) LANGUAGE plpgsql AS $$
DECLARE
	result json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || statement INTO result;
	plan := result::jsonb;
END
$$;
CREATE FUNCTION searched(statement text, OUT by_index boolean, OUT same_estimate boolean, OUT answer text) LANGUAGE plpgsql AS $$
DECLARE
	protected jsonb := plan_of(replace(statement, '#', 'customers'));
	plain jsonb := plan_of(replace(statement, '#', 'twin'));
BEGIN
	by_index := EXISTS (
		SELECT FROM jsonb_path_query(protected, 'strict $.**."Index Cond"') c
		WHERE c::text LIKE '%email__term =%');
	same_estimate := (protected #>> '{0,Plan,Plan Rows}')::numeric
		BETWEEN (plain #>> '{0,Plan,Plan Rows}')::numeric * 0.6 - 1
			AND (plain #>> '{0,Plan,Plan Rows}')::numeric * 2 + 1;
	answer := same(statement);
END
$$;

CREATE TABLE searches (n integer GENERATED ALWAYS AS IDENTITY, s text);
INSERT INTO searches (s) VALUES
	-- values
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE 'user200@example.com' = email AND 't1' = tenant_id$$),
	($$SELECT id FROM # WHERE email = 'user201@example.com'::varchar(30) AND tenant_id = 't2'::name::text$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = ''$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = NULL$$),
	($$SELECT id FROM # WHERE tenant_id = 'nobody' AND email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = NULL AND email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email IN ('user200@example.com', 'user202@example.com', NULL) ORDER BY id$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = ANY (string_to_array('user200@example.com,user204@example.com', ',')) ORDER BY id$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = ANY ('{}')$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND (email = 'user200@example.com' OR email = 'user206@example.com') ORDER BY id$$),
	($$SELECT id FROM # WHERE (tenant_id, email) = ('t1', 'user200@example.com')$$),
	($$SELECT id FROM # WHERE (tenant_id, email) IN (('t1', 'user200@example.com'), ('t2', 'user201@example.com')) ORDER BY id$$),
	($$SELECT id FROM # WHERE (tenant_id = 't1' AND email = 'user200@example.com') OR id = 7 ORDER BY id$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = 'user200@example.com' AND ssn = '200'$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = (SELECT email FROM orders WHERE id = 110)$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = lower('USER200@example.com')$$),
	-- joins
	($$SELECT c.id FROM orders o JOIN # c USING (tenant_id, email) WHERE o.id = 150$$),
	($$SELECT c.id FROM orders o JOIN # c ON c.email = o.email WHERE o.id = 150 AND c.tenant_id = 't1'$$),
	($$SELECT c.id FROM orders o JOIN # c ON c.email = o.email AND c.tenant_id = o.tenant_id WHERE o.id = 150 AND o.tenant_id = 't1'$$),
	($$SELECT o.id, c.id FROM orders o LEFT JOIN # c ON c.email = o.email AND c.tenant_id = o.tenant_id WHERE o.id < 6 ORDER BY 1$$),
	($$SELECT o.id, c.id FROM orders o LEFT JOIN # c ON c.email = o.email AND c.tenant_id = 't1' WHERE o.id < 6 ORDER BY 1$$),
	($$SELECT o.id, c.id FROM orders o LEFT JOIN (# c JOIN orders p ON p.email = c.email AND p.tenant_id = c.tenant_id) ON c.email = o.email AND c.tenant_id = o.tenant_id WHERE o.id BETWEEN 150 AND 152 ORDER BY 1$$),
	($$SELECT o.id FROM orders o WHERE o.id < 120 AND EXISTS (SELECT FROM # c WHERE c.tenant_id = o.tenant_id AND c.email = o.email) ORDER BY 1$$),
	($$SELECT o.id, l.id FROM orders o LEFT JOIN LATERAL (SELECT id FROM # c WHERE c.tenant_id = o.tenant_id AND c.email = o.email LIMIT 1) l ON true WHERE o.id < 120 ORDER BY 1$$),
	($$SELECT o.id, (SELECT c.id FROM # c WHERE c.tenant_id = o.tenant_id AND c.email = o.email) FROM orders o WHERE o.id < 120 ORDER BY 1$$),
	($$SELECT a.id, b.id FROM # a JOIN # b ON a.email = b.email AND a.tenant_id = b.tenant_id WHERE a.email = 'user200@example.com' AND a.tenant_id = 't1'$$),
	($$SELECT o.id FROM # c JOIN orders o ON o.email = c.email WHERE c.tenant_id = 't1' AND c.email = 'user200@example.com'$$),
	-- subqueries
	($$SELECT id FROM (SELECT id, tenant_id AS t, email AS e FROM #) q WHERE t = 't1' AND e = 'user200@example.com'$$),
	($$SELECT id FROM (SELECT id, email AS e FROM # WHERE tenant_id = 't1' ORDER BY born) q WHERE e = 'user200@example.com'$$),
	($$SELECT id FROM (SELECT * FROM (SELECT * FROM # WHERE tenant_id = 't1' OFFSET 0) p) q WHERE email = 'user200@example.com'$$),
	-- writes
	($$UPDATE # SET ssn = 'new' WHERE tenant_id = 't1' AND email = 'user300@example.com' RETURNING id, ssn$$),
	($$DELETE FROM # USING orders o WHERE #.email = o.email AND #.tenant_id = o.tenant_id AND o.id = 199 RETURNING #.id$$);
SELECT n, (searched(s)).* FROM searches ORDER BY n;

-- What is something else than equality under the type's rules is not searched
-- by terms, and right all the same.
INSERT INTO searches (s) VALUES
	($$SELECT id FROM # WHERE email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id LIKE 't1' AND email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email <> 'user200@example.com' AND id < 110 ORDER BY id$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND NOT (email = 'user200@example.com') AND id < 110 ORDER BY id$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND (email = 'user200@example.com') IS NOT TRUE AND id < 110 ORDER BY id$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' OR email = 'user200@example.com' ORDER BY id LIMIT 3$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email::bpchar = 'user200@example.com   '::bpchar$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = 'user200@example.com' || (random() * 0)::int::text$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = ALL ('{user200@example.com}')$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = tenant_id$$),
	($$SELECT o.id, c.id FROM # c LEFT JOIN orders o ON c.email = 'user200@example.com' AND c.tenant_id = 't1' AND o.id = c.id WHERE c.id BETWEEN 198 AND 201 ORDER BY 2$$),
	($$SELECT o.id, c.id FROM orders o FULL JOIN # c USING (tenant_id, email) WHERE o.id = 150 OR c.id < 10 ORDER BY 1, 2$$),
	($$SELECT id FROM (SELECT DISTINCT ON (email) id, email FROM # WHERE tenant_id = 't1' ORDER BY email, id) q WHERE email = 'user200@example.com'$$);
SELECT n, (searched(s)).by_index, (searched(s)).answer FROM searches WHERE n > 33 ORDER BY n;

-- One of several tenants, and CTEs that are referred to once.
INSERT INTO searches (s) VALUES
	($$SELECT id FROM # WHERE tenant_id IN ('t1', 't2') AND email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = ANY ('{t1,t2,nobody,NULL}') AND email IN ('user200@example.com', 'user201@example.com') ORDER BY id$$),
	($$SELECT id FROM # WHERE (tenant_id IN ('t1', 't2') AND email = 'user200@example.com') OR id = 7 ORDER BY id$$),
	($$SELECT id FROM (SELECT id, email FROM # WHERE tenant_id IN ('t1', 't2')) q WHERE email = 'user201@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = ANY (array(SELECT DISTINCT tenant_id FROM orders)) AND email = 'user201@example.com'$$),
	($$SELECT c.id FROM orders o JOIN # c ON c.email = o.email WHERE o.id = 150 AND c.tenant_id IN ('t1', 't2')$$),
	($$WITH w AS (SELECT * FROM #) SELECT id FROM w WHERE tenant_id = 't1' AND email = 'user200@example.com'$$),
	($$WITH v AS (SELECT id, tenant_id AS t, email AS e FROM #), w AS (SELECT * FROM v WHERE t = 't1') SELECT id FROM w WHERE e = 'user200@example.com'$$),
	($$WITH w AS NOT MATERIALIZED (SELECT * FROM #) SELECT o.id, w.id FROM orders o JOIN w USING (tenant_id, email) WHERE o.id = 150$$),
	($$WITH w AS (SELECT * FROM #) SELECT o.id, (SELECT id FROM w WHERE w.tenant_id = o.tenant_id AND w.email = o.email) FROM orders o WHERE o.id < 120 ORDER BY 1$$),
	($$WITH t AS (SELECT 't1' AS t) SELECT id FROM # WHERE tenant_id = (SELECT t FROM t) AND email = 'user200@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email = ANY (array(SELECT email FROM orders WHERE id < 120)) ORDER BY id$$);
SELECT n, (searched(s)).by_index, (searched(s)).answer FROM searches WHERE n > 46 ORDER BY n;
-- These are right, and not searched by terms.
INSERT INTO searches (s) VALUES
	($$SELECT id FROM # WHERE tenant_id <> ALL ('{t1}') AND email = 'user201@example.com'$$),
	($$SELECT id FROM # WHERE NOT tenant_id IN ('t1') AND email = 'user201@example.com'$$),
	($$SELECT id FROM # WHERE tenant_id = 't1' AND email IN (SELECT email FROM orders WHERE id < 120) ORDER BY id$$),
	($$WITH w AS MATERIALIZED (SELECT * FROM #) SELECT id FROM w WHERE tenant_id = 't1' AND email = 'user200@example.com'$$),
	($$WITH w AS (SELECT * FROM #) SELECT a.id FROM w a JOIN w b ON b.id = a.id WHERE a.tenant_id = 't1' AND a.email = 'user200@example.com'$$),
	($$SELECT id FROM (SELECT id, tenant_id, email FROM # UNION ALL SELECT id, tenant_id, email FROM orders WHERE id < 0) q WHERE tenant_id = 't1' AND email = 'user200@example.com'$$),
	($$SELECT email FROM (SELECT tenant_id, email FROM # GROUP BY tenant_id, email) q WHERE tenant_id = 't1' AND email = 'user200@example.com'$$),
	($$SELECT id FROM (WITH t AS (SELECT 't1' AS t) SELECT id, email FROM # WHERE tenant_id = (SELECT t FROM t)) q WHERE email = 'user200@example.com'$$);
SELECT n, (searched(s)).by_index, (searched(s)).answer FROM searches WHERE n > 58 ORDER BY n;

-- Prepared, with parameters, custom and generic.
PREPARE by_email (text, text) AS SELECT id FROM customers WHERE tenant_id = $1 AND email = $2;
PREPARE by_emails (text, text[]) AS SELECT id FROM customers WHERE tenant_id = $1 AND email = ANY ($2) ORDER BY id;
PREPARE of_tenants (text[], text) AS SELECT id FROM customers WHERE tenant_id = ANY ($1) AND email = $2 ORDER BY id;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE of_tenants ('{t1,t2}', 'user200@example.com');
EXECUTE of_tenants ('{t1,t2,nobody}', 'user200@example.com');
EXECUTE of_tenants ('{t2}', 'user200@example.com');
EXPLAIN (COSTS OFF) EXECUTE by_email ('t1', 'user200@example.com');
EXPLAIN (COSTS OFF) EXECUTE by_emails ('t1', '{user200@example.com}');
EXECUTE by_email ('t1', 'user200@example.com');
EXECUTE by_emails ('t2', '{user201@example.com,user200@example.com,user203@example.com}');
EXECUTE by_email ('newcomer', 'user200@example.com');
PREPARE of_newcomer AS SELECT id FROM customers WHERE tenant_id = 'newcomer' AND email = 'user200@example.com';
EXECUTE of_newcomer;
-- A tenant that comes later is found by plans that there were, those that have
-- computed terms too.
SELECT count(*) FROM (SELECT envelope_create_tenant('newcomer')) q;
INSERT INTO customers (id, tenant_id, email) VALUES (9000, 'newcomer', 'user200@example.com');
EXECUTE by_email ('newcomer', 'user200@example.com');
EXECUTE of_newcomer;
RESET plan_cache_mode;

-- Under row-level security, where the policy alone says which tenant, the index
-- is used below the policy; through views that are barriers too.
CREATE ROLE regress_app;
SELECT envelope_grant('regress_app', 'use');
GRANT USAGE ON SCHEMA twins TO regress_app;
GRANT SELECT, INSERT, UPDATE ON customers, twin, orders TO regress_app;
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE twin ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON customers USING (tenant_id = current_setting('app.tenant'));
CREATE POLICY tenant ON twin USING (tenant_id = (SELECT current_setting('app.tenant')));
CREATE POLICY tenant ON orders USING (tenant_id = current_setting('app.tenant'));
CREATE VIEW of_all WITH (security_barrier) AS SELECT id, tenant_id, email FROM customers;
CREATE VIEW of_tenant AS SELECT id, email, ssn FROM of_all v JOIN customers USING (id, email) WHERE v.tenant_id = current_setting('app.tenant');
CREATE VIEW invoker AS SELECT id, email FROM customers;
GRANT SELECT ON of_all, of_tenant, invoker TO regress_app;
ALTER VIEW invoker SET (security_invoker);
SET app.tenant = 't1';
SET ROLE regress_app;
EXPLAIN (COSTS OFF) SELECT id FROM customers WHERE email = 'user200@example.com';
SELECT id FROM customers WHERE email IN ('user200@example.com', 'user201@example.com');
EXPLAIN (COSTS OFF) SELECT c.id FROM orders o JOIN customers c USING (email) WHERE o.id = 150;
SELECT c.id FROM orders o JOIN customers c USING (email) WHERE o.id = 150;
EXPLAIN (COSTS OFF) SELECT id FROM invoker WHERE email = 'user200@example.com';
SELECT id FROM invoker WHERE email = 'user200@example.com';
SELECT (plan_of($$SELECT id FROM of_all WHERE email = 'user201@example.com' AND tenant_id = 't2'$$))::text ~ 'Index Cond[^,]*email__term =' AS by_index;
SELECT id FROM of_all WHERE email = 'user201@example.com' AND tenant_id = 't2';
SELECT id, ssn FROM of_tenant WHERE email = 'user200@example.com';
RESET ROLE;
-- Rows of views that are locked, or looked at again
SELECT id FROM of_all WHERE email = 'user201@example.com' AND tenant_id = 't2' FOR UPDATE;
SELECT v FROM of_all v WHERE email = 'user201@example.com' AND tenant_id = 't2';
UPDATE of_all SET email = email WHERE email = 'user201@example.com' AND tenant_id = 't2' RETURNING id;
UPDATE orders o SET amount = 0 FROM of_all v WHERE v.email = 'user200@example.com' AND v.tenant_id = 't1' AND o.id = v.id RETURNING v.id, v;
-- So they are where views stand in what becomes a part of such a statement, and are
-- queries of their own there
CREATE VIEW sorted AS SELECT id, tenant_id, email FROM customers ORDER BY id;
CREATE VIEW with_cte AS WITH c AS (SELECT 0 AS zero) SELECT id, tenant_id, email FROM customers WHERE id > (SELECT zero FROM c);
CREATE VIEW inconstant AS SELECT id, tenant_id, email, random() FROM customers;
CREATE VIEW nested AS SELECT * FROM of_all;
CREATE FUNCTION answers(statement text) RETURNS TABLE (view text, answer text) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH view IN ARRAY '{of_all,sorted,with_cte,inconstant,nested,invoker}'::text[] LOOP
		BEGIN
			EXECUTE replace(statement, 'VIEW', (SELECT format('(SELECT * FROM %s) AS v', CASE view WHEN 'invoker' THEN '(SELECT ''t1'' AS tenant_id, id, email FROM invoker) i' ELSE view END)));
			GET DIAGNOSTICS answer = ROW_COUNT;
		EXCEPTION WHEN OTHERS THEN
			answer := SQLSTATE;
		END;
		RETURN NEXT;
	END LOOP;
END $$;
SELECT * FROM answers($$SELECT o.id FROM orders o WHERE id IN (SELECT v.id FROM VIEW WHERE v.email = 'user200@example.com' AND v.tenant_id = 't1') FOR KEY SHARE$$);
SELECT * FROM answers($$SELECT o.id FROM orders o, VIEW WHERE o.id = v.id AND v.email = 'user200@example.com' AND v.tenant_id = 't1' FOR UPDATE OF o$$);
SELECT * FROM answers($$UPDATE orders o SET amount = 0 WHERE id IN (SELECT v.id FROM VIEW WHERE v.email = 'user200@example.com' AND v.tenant_id = 't1') RETURNING o.id$$);
SELECT * FROM answers($$UPDATE orders o SET amount = 0 FROM VIEW WHERE o.id = v.id AND v.email = 'user200@example.com' AND v.tenant_id = 't1' RETURNING o.id$$);
SELECT * FROM answers($$UPDATE orders o SET amount = 0 FROM VIEW WHERE o.email = v.email AND o.tenant_id = v.tenant_id AND o.id = 200 RETURNING o.id$$);
SELECT * FROM answers($$DELETE FROM orders o WHERE EXISTS (SELECT FROM VIEW WHERE v.id = o.id AND v.email = 'nobody' AND v.tenant_id = 't1') RETURNING o.id$$);
SELECT * FROM answers($$MERGE INTO orders o USING VIEW ON o.id = v.id AND v.email = 'user200@example.com' AND v.tenant_id = 't1' WHEN MATCHED THEN UPDATE SET amount = 1$$);
ALTER POLICY tenant ON customers USING (tenant_id = (SELECT current_setting('app.tenant')));
SET ROLE regress_app;
SET app.tenant = 't2';
SELECT id FROM customers WHERE email = 'user201@example.com' OR email = 'user200@example.com';
SELECT (plan_of($$SELECT id FROM customers WHERE email = 'user201@example.com'$$))::text ~ 'Index Cond[^,]*email__term =' AS by_index;
RESET ROLE;
ALTER TABLE customers DISABLE ROW LEVEL SECURITY;
ALTER TABLE twin DISABLE ROW LEVEL SECURITY;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;

-- No error tells what was searched for.
SELECT envelope_suspend_tenant('newcomer');
SELECT message($$SELECT id FROM customers WHERE tenant_id = 'newcomer' AND email = 'x'$$);
SET envelope.unreadable = 'null';
SELECT id FROM customers WHERE tenant_id = 'newcomer' AND email = 'x';
RESET envelope.unreadable;
SET envelope.tenant = 't1';
SELECT message($$SELECT id FROM customers WHERE tenant_id = 't2' AND email = 'x'$$);
RESET envelope.tenant;
SELECT envelope_resume_tenant('newcomer');

-- Columns of other types.
CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE TABLE typed (id integer PRIMARY KEY, tenant bigint, n integer, d date, u uuid, m mood, b bytea, ts timestamptz, i inet);
SELECT envelope_protect('typed', 'tenant', '{n,d,u,m,b,ts,i}', '{n,d,u,m,b,ts,i}', force => true);
INSERT INTO typed VALUES (1, 42, 7, '2001-02-03', '00000000-0000-0000-0000-00000000002a', 'sad', '\x00ff', '2001-02-03 04:05:06+00', '10.0.0.1');
SET datestyle = 'SQL, DMY';
SET timezone = 'America/New_York';
CREATE INDEX ON typed (n__term);
SELECT id FROM typed WHERE tenant = 42 AND n = 7::bigint AND d = '03/02/2001' AND u = '0000000000000000000000000000002A'
	AND m = 'sad' AND b = '\x00ff' AND ts = '02/02/2001 23:05:06' AND i = '10.0.0.1/32';
SELECT plan::text LIKE '%(d__term = %' AS d, plan::text LIKE '%(n__term = ANY %' AS n
FROM plan_of($$SELECT id FROM typed WHERE tenant = 42::smallint AND d = '03/02/2001' AND n IN (7, 8)$$);
SELECT id FROM typed WHERE tenant = 42 AND d = '2001-02-03'::timestamp AND n = 7.0;
SELECT id FROM typed WHERE tenant IN (41, 42) AND d = '03/02/2001' AND n IN (7, 8);
SELECT plan::text LIKE '%(d__term = ANY %' AS d FROM plan_of($$SELECT id FROM typed WHERE tenant IN (41, 42) AND d = '03/02/2001'$$);
CREATE DOMAIN tenant_id AS bigint;
SELECT id FROM typed WHERE tenant = '42'::tenant_id AND d = '03/02/2001';
SELECT id FROM typed WHERE tenant = ANY ('{42}'::tenant_id[]) AND d = '03/02/2001';
RESET datestyle;
RESET timezone;
DROP TABLE typed;
DROP DOMAIN tenant_id;

-- A tenant column that is taken for another type is compared as that type does:
-- nothing then tells whose term to look for.
RESET search_path;
SET client_min_messages = error;
CREATE TABLE numbered (id integer, tenant_id integer, email text);
CREATE TABLE named (id integer, tenant_id varchar, email text);
INSERT INTO numbered VALUES (1, 42, 'a'), (2, 42, 'b');
INSERT INTO named VALUES (1, 't1', 'a'), (2, 't2', 'b');
SELECT envelope_protect('numbered', 'tenant_id', '{email}', '{email}'), envelope_protect('named', 'tenant_id', '{email}', '{email}');
CREATE TABLE others (o oid, c char(5), m text);
INSERT INTO others VALUES (42, 't1', 'a');
SELECT n.id FROM numbered n JOIN others ON n.tenant_id = o AND n.email = m;
SELECT id FROM numbered WHERE tenant_id::oid = 42::oid AND email = 'b';
SELECT id FROM numbered WHERE tenant_id::oid = ANY ('{42}'::oid[]) AND email = 'b';
SELECT n.id FROM named n JOIN others ON n.tenant_id = c AND n.email = m;
SELECT id FROM named WHERE tenant_id = 't1 '::char(5) AND email = 'a';
DELETE FROM named USING others WHERE named.tenant_id = c AND email = m RETURNING id;
DROP TABLE numbered, named, others;
RESET client_min_messages;
