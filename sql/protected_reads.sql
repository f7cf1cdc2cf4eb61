-- Protected tables are read as their plaintext twins are.

CREATE SCHEMA twins;
SET search_path = twins, public;

-- A table, protected, and its twin that is not.
CREATE TABLE customers (
	id integer PRIMARY KEY,
	tenant_id text NOT NULL,
	email text,
	ssn varchar(11),
	born date,
	limits integer[],
	note text DEFAULT 'x',
	UNIQUE (tenant_id, email));
CREATE TABLE twin (LIKE customers INCLUDING ALL);
CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer, tenant_id text, email text, amount integer);
SELECT envelope_protect('customers', 'tenant_id', '{email,ssn,born,limits}', '{email}');

-- Run a statement on either, # standing for its name.  Says how many rows
-- both give, or the SQLSTATE that both raise; else what each of them gives.  A
-- statement that writes is put into WITH and must have RETURNING.
CREATE FUNCTION answer(statement text, relation text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	query text := replace(statement, '#', relation);
BEGIN
	IF statement ~* '^\s*(insert|update|delete|merge)' THEN
		EXECUTE format('WITH q AS (%s) SELECT jsonb_agg(q) FROM q', query) INTO result;
	ELSE
		EXECUTE format('SELECT jsonb_agg(q) FROM (%s) q', query) INTO result;
	END IF;
	RETURN coalesce(result, '[]');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION same(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	protected text := answer(statement, 'customers');
	plain text := answer(statement, 'twin');
BEGIN
	IF protected IS DISTINCT FROM plain THEN
		RETURN format('protected: %s, twin: %s', protected, plain);
	END IF;
	RETURN CASE WHEN plain LIKE '[%' THEN jsonb_array_length(plain::jsonb) || ' rows' ELSE plain END;
END
$$;

SELECT same($$INSERT INTO # VALUES
	(1, 't1', 'ann@example.com', '111-11-1111', '2001-02-03', '{1,2}'),
	(2, 't1', 'bob@example.com', NULL, NULL, NULL),
	(3, 't1', '', '', 'infinity', '{}'),
	(4, 't2', 'ann@example.com', '222-22-2222', '1970-01-01', '{{1,2},{3,NULL}}'),
	(5, 't2', NULL, '333', NULL, NULL) RETURNING id$$);
INSERT INTO orders SELECT i, 1 + i % 6, 't' || 1 + i % 2, (array['ann@example.com', 'bob@example.com', 'zoe@example.com'])[1 + i % 3], i
FROM generate_series(1, 20) i;

-- What a client is told of the columns is what it was told before.
SELECT id, email, ssn, born, limits, note FROM customers ORDER BY id
\gdesc
SELECT id, email, ssn, born, limits, note FROM customers ORDER BY id;

-- Conditions, expressions, order, groups.
CREATE TABLE statements (n integer GENERATED ALWAYS AS IDENTITY, s text);
INSERT INTO statements (s) VALUES
	($$SELECT email FROM # WHERE email = 'ann@example.com' ORDER BY id$$),
	($$SELECT id FROM # WHERE email = 'ann@example.com' AND tenant_id = 't2'$$),
	($$SELECT id FROM # WHERE email LIKE 'b%'$$),
	($$SELECT id FROM # WHERE born BETWEEN '1960-01-01' AND '2020-01-01' ORDER BY born DESC$$),
	($$SELECT id FROM # WHERE email IS NULL OR ssn IS NULL ORDER BY id$$),
	($$SELECT id FROM # WHERE email IS NOT NULL AND born IS NOT NULL ORDER BY id$$),
	($$SELECT id, email IS NULL, email IS DISTINCT FROM ssn FROM # ORDER BY id$$),
	($$SELECT DISTINCT email FROM # ORDER BY email NULLS FIRST$$),
	($$SELECT DISTINCT ON (tenant_id) tenant_id, email FROM # ORDER BY tenant_id, email DESC$$),
	($$SELECT email, ssn FROM # ORDER BY email COLLATE "C", ssn$$),
	($$SELECT upper(email) || coalesce(ssn, '-'), length(ssn), born + 1, limits[1] FROM # ORDER BY id$$),
	($$SELECT email, count(*), max(born), min(ssn) FROM # GROUP BY email ORDER BY email$$),
	($$SELECT upper(email), count(*) FROM # GROUP BY upper(email) HAVING count(email) > 0 ORDER BY 1$$),
	($$SELECT id, email, note FROM # GROUP BY id ORDER BY id$$),
	($$SELECT tenant_id, email, lower(email), count(ssn), grouping(email) FROM # GROUP BY ROLLUP (tenant_id, email) ORDER BY 1, 2, 4, 5$$),
	($$SELECT email, ssn, count(*) FROM # GROUP BY CUBE (email, ssn) ORDER BY 1, 2, 3$$),
	($$SELECT string_agg(email, ',' ORDER BY email DESC) FILTER (WHERE born IS NOT NULL) FROM #$$),
	($$SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY email), lag(ssn) OVER w FROM # WINDOW w AS (ORDER BY born, id) ORDER BY id$$),
	($$SELECT id, CASE email WHEN 'ann@example.com' THEN ssn ELSE 'no' END FROM # ORDER BY id$$),
	($$SELECT id FROM # WHERE (email, ssn) > ('b', '') ORDER BY id$$),
	($$SELECT id FROM # WHERE limits @> '{1}' OR 3 = ANY (limits) ORDER BY id$$),
	($$SELECT id, unnest(limits) FROM # ORDER BY id, 2$$),
	($$SELECT email FROM # ORDER BY id LIMIT (SELECT count(born) FROM #) OFFSET 1$$),
	($$SELECT id FROM # ORDER BY email, ssn, id FETCH FIRST 2 ROWS WITH TIES$$),
	-- whole rows
	($$SELECT (t).email, (t).born FROM # t ORDER BY id$$),
	($$SELECT id FROM # t WHERE t IS NULL OR t IS NOT NULL ORDER BY id$$),
	($$SELECT count(t), count(*) FROM # t$$),
	($$SELECT count(DISTINCT (t).ssn) FROM (SELECT t FROM # t) q$$),
	($$SELECT (t).ssn FROM (SELECT t FROM # t ORDER BY id) q$$),
	($$SELECT o.id, c IS NULL FROM orders o LEFT JOIN # c ON c.id = o.customer_id AND c.ssn <> '' ORDER BY o.id$$),
	-- joins
	($$SELECT o.id, c.email FROM orders o JOIN # c ON c.id = o.customer_id ORDER BY o.id$$),
	($$SELECT o.id, c.email, c.ssn FROM orders o LEFT JOIN # c ON c.id = o.customer_id AND c.born IS NOT NULL ORDER BY o.id$$),
	($$SELECT o.id, c.id FROM orders o FULL JOIN # c ON c.id = o.customer_id AND c.ssn IS NOT NULL ORDER BY 1, 2$$),
	($$SELECT o.id, c.id FROM orders o JOIN # c USING (tenant_id, email) ORDER BY 1, 2$$),
	($$SELECT email, o.id, c.id FROM orders o FULL JOIN # c USING (tenant_id, email) ORDER BY 1, 2, 3$$),
	($$SELECT email, j.ssn FROM (orders o LEFT JOIN # c USING (tenant_id, email)) j ORDER BY 1, 2$$),
	($$SELECT a.email, b.email, b.ssn FROM # a LEFT JOIN # b ON a.email = b.email AND a.id < b.id ORDER BY 1, 2, a.id$$),
	($$SELECT o.id FROM orders o LEFT JOIN # c ON c.id = o.customer_id WHERE c.email IS NULL ORDER BY 1$$),
	($$SELECT o.id FROM orders o LEFT JOIN # c ON c.id = o.customer_id WHERE c.ssn = '333' ORDER BY 1$$),
	($$SELECT o.id, l.email FROM orders o, LATERAL (SELECT email FROM # c WHERE c.id <= o.customer_id ORDER BY email DESC NULLS LAST LIMIT 1) l ORDER BY 1$$),
	($$SELECT o.id, l.* FROM orders o LEFT JOIN LATERAL (SELECT c.email, o.amount + c.id AS x FROM # c WHERE c.email = o.email) l ON true ORDER BY 1, 2, 3$$),
	($$SELECT c.id, g FROM # c, LATERAL regexp_split_to_table(c.email, '@') g ORDER BY 1, 2$$),
	($$SELECT * FROM (# c CROSS JOIN (VALUES (1)) v (x)) AS j (a, b, c, d) WHERE c = 'ann@example.com' AND false$$),
	-- subqueries
	($$SELECT id, (SELECT max(email) FROM # b WHERE b.id < a.id) FROM # a ORDER BY id$$),
	($$SELECT id FROM orders o WHERE email IN (SELECT email FROM #) ORDER BY id$$),
	($$SELECT id FROM orders o WHERE email NOT IN (SELECT email FROM # WHERE email IS NOT NULL) ORDER BY id$$),
	($$SELECT id FROM orders o WHERE EXISTS (SELECT FROM # c WHERE c.email = o.email AND c.tenant_id = o.tenant_id) ORDER BY id$$),
	($$SELECT id FROM # c WHERE email = ANY (SELECT email FROM orders) ORDER BY id$$),
	($$SELECT id FROM # c WHERE (email, tenant_id) = (SELECT email, tenant_id FROM orders WHERE id = 4)$$),
	($$SELECT array(SELECT ssn FROM # ORDER BY id)$$),
	($$SELECT e, s FROM (SELECT email AS e, max(ssn) AS s FROM # GROUP BY email) q WHERE e LIKE '%' ORDER BY e$$),
	($$SELECT email FROM (SELECT email FROM # WHERE id < 4 UNION SELECT email FROM orders EXCEPT SELECT ssn FROM #) u ORDER BY 1$$),
	($$SELECT email FROM # UNION ALL SELECT ssn FROM # ORDER BY 1$$),
	($$SELECT id FROM (SELECT id, email FROM # OFFSET 0) q WHERE email IS NOT NULL ORDER BY id$$),
	-- CTEs
	($$WITH c AS (SELECT * FROM #) SELECT id, email FROM c WHERE ssn > '1' ORDER BY id$$),
	($$WITH c AS MATERIALIZED (SELECT email, id FROM #) SELECT a.id, b.id FROM c a JOIN c b USING (email) ORDER BY 1, 2$$),
	($$WITH RECURSIVE r AS (SELECT id, email, 1 AS n FROM # WHERE id = 1 UNION ALL SELECT c.id, r.email || c.email, n + 1 FROM r JOIN # c ON c.id = r.id + 1) SELECT * FROM r ORDER BY n$$),
	($$SELECT id FROM # TABLESAMPLE SYSTEM (100) WHERE email > 'b' ORDER BY id$$),
	($$SELECT id, email FROM ONLY # ORDER BY id FOR UPDATE$$),
	($$SELECT c.email FROM # c JOIN orders o ON o.customer_id = c.id WHERE o.id = 3 FOR SHARE OF c SKIP LOCKED$$),
	-- errors
	($$SELECT 1 / (length(email) - 15) FROM #$$),
	($$SELECT born::text::integer FROM #$$);
SELECT n, same(s) FROM statements ORDER BY n;

-- The same in every way that the executor can go.
SET enable_hashjoin = off;
SET enable_hashagg = off;
SET enable_nestloop = off;
SELECT count(*) AS differ FROM statements WHERE same(s) LIKE 'protected:%';
SET enable_nestloop = on;
SET enable_mergejoin = off;
SET enable_material = off;
SET enable_memoize = off;
SELECT count(*) AS differ FROM statements WHERE same(s) LIKE 'protected:%';
RESET ALL;
SET search_path = twins, public;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*) AS differ FROM statements WHERE same(s) LIKE 'protected:%';
RESET ALL;
SET search_path = twins, public;

-- A test for null needs no key; EXPLAIN shows what is done.
EXPLAIN (VERBOSE, COSTS OFF)
SELECT id, email, born FROM customers WHERE ssn IS NOT NULL AND email LIKE 'a%';
EXPLAIN (VERBOSE, COSTS OFF) SELECT c FROM customers c;

-- As it is stored, for those who may.
SET envelope.stored_form = on;
SELECT id, email, ssn, envelope_is_sealed(email__sealed) AS sealed, length(email__term) AS term FROM customers ORDER BY id;
RESET envelope.stored_form;
CREATE ROLE regress_reader;
SET ROLE regress_reader;
SELECT message('SET envelope.stored_form = on');
RESET ROLE;
DROP ROLE regress_reader;
