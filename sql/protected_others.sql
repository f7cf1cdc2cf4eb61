-- Protected tables where statements come from elsewhere than a client: functions
-- of all forms, rules, triggers; and tables that are more than one.

SET search_path = twins, public;
CREATE TABLE items (id integer PRIMARY KEY, tenant_id text, name text, price integer);
SELECT envelope_protect('items', 'tenant_id', '{name,price}');
INSERT INTO items VALUES (1, 't1', 'one', 10), (2, 't1', 'two', 20), (3, 't2', 'three', 30);

-- SQL functions that PostgreSQL puts in the place of their calls, and those that
-- it does not
CREATE FUNCTION cheap(integer) RETURNS SETOF items LANGUAGE sql STABLE AS 'SELECT * FROM items WHERE price < $1';
CREATE FUNCTION cheap_atomic(integer) RETURNS SETOF items LANGUAGE sql STABLE BEGIN ATOMIC SELECT * FROM items WHERE price < $1; END;
CREATE FUNCTION cheap_table(integer) RETURNS TABLE (n text, p integer) LANGUAGE sql STABLE AS 'SELECT name, price FROM items WHERE price < $1';
CREATE FUNCTION cheap_twice(integer) RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT n FROM cheap_table($1) UNION ALL SELECT name FROM cheap_atomic($1)';
CREATE FUNCTION cheap_volatile(integer) RETURNS SETOF items LANGUAGE sql VOLATILE AS 'SELECT * FROM items WHERE price < $1';
CREATE FUNCTION cheap_strict(integer) RETURNS SETOF items LANGUAGE sql STABLE STRICT AS 'SELECT * FROM items WHERE price < $1';
CREATE FUNCTION name_of(integer) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM items WHERE id = $1';
CREATE FUNCTION label(items) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1.name || ':' || $1.price $$;
CREATE FUNCTION raise_price(integer, integer) RETURNS integer LANGUAGE sql AS 'UPDATE items SET price = price + $2 WHERE id = $1 RETURNING price';
CREATE FUNCTION raise_price_atomic(integer, integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC UPDATE items SET price = price + $2 WHERE id = $1 RETURNING price; END;
SELECT id, name FROM cheap(25) ORDER BY id;
SELECT c.name, i.name FROM cheap_atomic(25) c LEFT JOIN items i ON i.id = c.id + 1 ORDER BY c.id;
SELECT * FROM cheap_table(35) ORDER BY p DESC;
SELECT * FROM cheap_twice(15);
SELECT i.id, l.n FROM items i, LATERAL cheap_table(i.price) l ORDER BY 1, 2;
SELECT name FROM cheap_volatile(25) UNION ALL SELECT name FROM cheap_strict(15) ORDER BY 1;
SELECT c, (c).name, ord FROM cheap(15) WITH ORDINALITY AS t (id, tenant_id, name, price, s1, s2, ord), LATERAL (SELECT t.name) c;
SELECT name_of(2), label(i), i.label FROM items i ORDER BY id;
SELECT raise_price(1, 5), raise_price_atomic(1, 5);
SELECT (SELECT string_agg(name, ',' ORDER BY id) FROM cheap(i.price + 1)) FROM items i ORDER BY id;
EXPLAIN (VERBOSE, COSTS OFF) SELECT name FROM cheap(25) WHERE id = 1;

-- What was put in place under one role's policies is not another's.
CREATE ROLE regress_one;
CREATE ROLE regress_two;
GRANT USAGE ON SCHEMA twins TO regress_one, regress_two;
GRANT SELECT ON items TO regress_one, regress_two;
SELECT envelope_grant('regress_one', 'use'), envelope_grant('regress_two', 'use');
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON items TO regress_one USING (tenant_id = 't1');
CREATE POLICY two ON items TO regress_two USING (tenant_id = 't2');
PREPARE by_role AS SELECT name FROM cheap(100) ORDER BY 1;
SET plan_cache_mode = force_generic_plan;
SET ROLE regress_one;
EXECUTE by_role;
SET ROLE regress_two;
EXECUTE by_role;
RESET ROLE;
RESET plan_cache_mode;
-- Reading through a view asks the reader for the capability, not its owner.
CREATE VIEW item_names AS SELECT name FROM items;
CREATE ROLE regress_three;
GRANT USAGE ON SCHEMA twins TO regress_three;
GRANT SELECT ON item_names TO regress_three;
SET ROLE regress_three;
SELECT message('SELECT * FROM item_names');
SELECT count(*) FROM item_names;
RESET ROLE;
ALTER TABLE items DISABLE ROW LEVEL SECURITY;
-- The plan follows a function that changes.
PREPARE changing AS SELECT count(*) FROM cheap(100);
SET plan_cache_mode = force_generic_plan;
EXECUTE changing;
CREATE OR REPLACE FUNCTION cheap(integer) RETURNS SETOF items LANGUAGE sql STABLE AS 'SELECT * FROM items WHERE price < 15 AND $1 > 0';
EXECUTE changing;
RESET plan_cache_mode;

-- PL/pgSQL
DO $$
DECLARE
	i items;
	total integer := 0;
BEGIN
	FOR i IN SELECT * FROM items ORDER BY id LOOP
		total := total + i.price;
		UPDATE items SET name = i.name || '!' WHERE id = i.id;
	END LOOP;
	SELECT * INTO STRICT i FROM items WHERE name = 'two!';
	RAISE INFO '% % %', total, i.id, (SELECT count(*) FROM items WHERE name LIKE '%!');
END
$$;

-- Transition tables
CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE INFO '%', (SELECT string_agg(o.name || '>' || n.name || '=' || (n).price, ' ' ORDER BY n.id)
		FROM was o JOIN became n USING (id) WHERE n.name IS NOT NULL);
	RAISE INFO '%', (SELECT count(b) FROM became b WHERE (b).name LIKE 'x%');
	RETURN NULL;
END
$$;
CREATE TRIGGER changes AFTER UPDATE ON items REFERENCING OLD TABLE AS was NEW TABLE AS became
	FOR EACH STATEMENT EXECUTE FUNCTION changes();
UPDATE items SET name = 'x' || id, price = price * 2;
DROP TRIGGER changes ON items;

-- Partitions whose columns are in other orders
CREATE TABLE events (id integer, tenant_id text, kind text, secret text, amount integer) PARTITION BY LIST (kind);
CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a');
CREATE TABLE events_b (amount integer, dropped integer, secret text, kind text, tenant_id text, id integer);
ALTER TABLE events_b DROP COLUMN dropped;
ALTER TABLE events ATTACH PARTITION events_b FOR VALUES IN ('b');
SELECT envelope_protect('events', 'tenant_id', '{secret,amount}');
INSERT INTO events VALUES (1, 't1', 'a', 's1', 1), (2, 't1', 'b', 's2', 2), (3, 't2', 'b', NULL, 3);
INSERT INTO events_b (id, tenant_id, kind, secret, amount) VALUES (4, 't2', 'b', 's4', 4);
SELECT tableoid::regclass, * FROM events ORDER BY id;
SELECT * FROM events_b ORDER BY id;
SELECT e.id, (e).secret, e IS NOT NULL FROM events e ORDER BY id;
UPDATE events SET secret = secret || amount, amount = amount + 1 WHERE id > 1 RETURNING tableoid::regclass, id, secret, amount;
UPDATE events SET kind = CASE kind WHEN 'a' THEN 'b' ELSE 'a' END WHERE id < 3 RETURNING tableoid::regclass, id, secret, amount;
DELETE FROM events WHERE secret = 's24' OR amount = 4 RETURNING id, secret;
SELECT sum(amount), max(secret) FROM events;
EXPLAIN (VERBOSE, COSTS OFF) SELECT secret FROM events WHERE kind = 'b';

-- Parallel workers open too.
CREATE TABLE many (id integer, tenant_id text, word text);
SELECT envelope_protect('many', 'tenant_id', '{word}');
INSERT INTO many SELECT i, 't1', 'word' || i % 10 FROM generate_series(1, 2000) i;
ANALYZE many;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT count(*) FROM many WHERE word = 'word3';
SELECT count(*) FROM many WHERE word = 'word3';
SELECT word, count(*) FROM many GROUP BY word ORDER BY word LIMIT 2;
RESET ALL;
SET search_path = twins, public;

-- A statement that would read a carrier all the same is refused: here of a table
-- that came to have a parent behind everybody's back.
CREATE TABLE parent (id integer, tenant_id text, name text, price integer);
SET allow_system_table_mods = on;
INSERT INTO pg_inherits VALUES ('items'::regclass, 'parent'::regclass, 1, false);
UPDATE pg_class SET relhassubclass = true WHERE oid = 'parent'::regclass;
SELECT message('SELECT name FROM parent');
DELETE FROM pg_inherits WHERE inhparent = 'parent'::regclass;
DROP TABLE parent;
RESET allow_system_table_mods;

-- COPY says of which line an error is, and not what it holds.
RESET search_path;
CREATE TABLE lines (tenant_id text, secret text, n integer NOT NULL, CONSTRAINT long CHECK (length(secret) > 3));
CREATE UNIQUE INDEX ON lines (n);
SELECT envelope_protect('lines', 'tenant_id', '{secret}');
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.n = 9 THEN RAISE EXCEPTION 'nine'; END IF; RETURN NEW; END$$;
CREATE TRIGGER complain BEFORE INSERT ON lines FOR EACH ROW EXECUTE FUNCTION complain();
COPY lines FROM STDIN;
t1	secret	1
nobody	secret	2
\.
COPY lines FROM STDIN;
t1	sec	1
\.
COPY lines FROM STDIN;
t1	secret	1
t1	secret	1
\.
COPY lines FROM STDIN (FORMAT csv);
t1,secret,9
\.
DROP TABLE lines;
DROP FUNCTION complain;
