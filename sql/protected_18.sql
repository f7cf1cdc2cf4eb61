-- What PostgreSQL 18 added: RETURNING with OLD and NEW, MERGE with everything.
SELECT current_setting('server_version_num')::int < 180000 AS older \gset
\if :older
\quit
\endif
SET search_path = twins, public;
CREATE TABLE pets (id integer PRIMARY KEY, tenant_id text, name text, age integer, UNIQUE (tenant_id, name));
SELECT envelope_protect('pets', 'tenant_id', '{name,age}', '{name}');
INSERT INTO pets VALUES (1, 't1', 'rex', 3), (2, 't1', 'tom', 4), (3, 't2', 'rex', 5)
	RETURNING old.name, new.name, new.*, old;
UPDATE pets SET age = age + 1, name = upper(name) WHERE tenant_id = 't1'
	RETURNING old.name, new.name, new.age - old.age AS older, old.*, new IS NOT NULL AS complete;
UPDATE pets SET tenant_id = 't2' WHERE name = 'TOM' RETURNING old.tenant_id, new.tenant_id, old.name, new.name;
INSERT INTO pets AS p VALUES (4, 't1', 'REX', 9) ON CONFLICT (tenant_id, name) DO UPDATE SET age = excluded.age + p.age
	RETURNING WITH (OLD AS o, NEW AS n) o.age, n.age, o.name, (n).name;
DELETE FROM pets WHERE id = 3 RETURNING old.name, new.name, old.*;
MERGE INTO pets p USING (VALUES ('t1', 'REX', 1), ('t1', 'new', 2)) v (t, n, a) ON p.tenant_id = v.t AND p.name = v.n
	WHEN MATCHED THEN UPDATE SET age = v.a
	WHEN NOT MATCHED THEN INSERT (id, tenant_id, name, age) VALUES (10 + v.a, v.t, v.n, v.a)
	WHEN NOT MATCHED BY SOURCE AND p.name = 'TOM' THEN DELETE
	RETURNING merge_action(), old.name, old.age, new.name, new.age, p.*;
SELECT * FROM pets ORDER BY id;
SELECT name, count(*) FROM pets GROUP BY GROUPING SETS ((name), (tenant_id), ()) ORDER BY 1, 2;
EXPLAIN (VERBOSE, COSTS OFF) UPDATE pets SET age = 0 WHERE id = 1 RETURNING old.age, new.age;
-- Constraints of a table that a column is not null are not for what belongs to a protected one.
SELECT message('ALTER TABLE pets ADD NOT NULL name__term') AS term, outcome('ALTER TABLE pets ADD NOT NULL age__sealed') AS sidecar;
ALTER TABLE pets ADD NOT NULL age;
SELECT outcome($$INSERT INTO pets VALUES (20, 't1', 'none')$$) AS age;
CREATE TABLE cats (tenant_id text, name text) PARTITION BY LIST (tenant_id);
SELECT envelope_protect('cats', 'tenant_id', '{name}', '{name}');
SELECT message('CREATE TABLE cats_1 PARTITION OF cats (NOT NULL name__term) DEFAULT') AS term;
DROP TABLE pets, cats;

-- NOT NULL as a constraint: whatever one is goes to the sidecar and comes back.
CREATE FUNCTION not_nulls(relations text) RETURNS TABLE (line text) LANGUAGE sql AS $$
	SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(c.oid), CASE WHEN conislocal THEN 'local' END, nullif(coninhcount, 0), obj_description(c.oid, 'pg_constraint'))
	FROM pg_constraint c WHERE conrelid::regclass::text ~ ('^(' || relations || ')$') AND contype = 'n' ORDER BY 1 $$;
CREATE TABLE loose (tenant_id text, a text, b text, c text CONSTRAINT c_alone NOT NULL NO INHERIT, d text NOT NULL);
INSERT INTO loose VALUES ('t1', NULL, 'b', 'c', 'd');
ALTER TABLE loose ADD CONSTRAINT a_later NOT NULL a NOT VALID;
COMMENT ON CONSTRAINT a_later ON loose IS 'new rows';
COMMENT ON CONSTRAINT c_alone ON loose IS 'no child';
CREATE TABLE loose_before AS SELECT * FROM not_nulls('loose');
SELECT * FROM loose_before;
SELECT envelope_protect('loose', 'tenant_id', '{a,b,c}');
SELECT * FROM not_nulls('loose');
SELECT outcome('INSERT INTO loose VALUES (''t1'', NULL, ''b'', ''c'', ''d'')') AS a, outcome('INSERT INTO loose VALUES (''t1'', ''a'', ''b'', NULL, ''d'')') AS c, outcome('UPDATE loose SET b = NULL, a = ''a'' RETURNING c') AS b;
ALTER TABLE loose DROP CONSTRAINT c_alone;
ALTER TABLE loose ADD CONSTRAINT b_later NOT NULL b NOT VALID, ADD CONSTRAINT c_alone NOT NULL c NO INHERIT;
COMMENT ON CONSTRAINT c_alone ON loose IS 'no child';
SELECT envelope_unprotect('loose');
SELECT * FROM not_nulls('loose') EXCEPT SELECT * FROM loose_before;
SELECT count(*) FROM loose_before b JOIN not_nulls('loose') n USING (line);
SELECT message('ALTER TABLE loose VALIDATE CONSTRAINT b_later');
ALTER TABLE loose DROP COLUMN c;
SELECT * FROM not_nulls('loose');

-- Those of partitions have names that others have in the table, at another place.
CREATE TABLE named (tenant_id text, a text, b text CONSTRAINT bn NOT NULL, c text NOT NULL, k int) PARTITION BY LIST (k);
CREATE TABLE named_1 (gone int, tenant_id text, a text CONSTRAINT bn NOT NULL, b text CONSTRAINT an NOT NULL, c text CONSTRAINT cn NOT NULL, k int);
ALTER TABLE named_1 DROP gone;
ALTER TABLE named ATTACH PARTITION named_1 FOR VALUES IN (1);
CREATE TABLE named_2 PARTITION OF named (c CONSTRAINT own_c NOT NULL) FOR VALUES IN (2) PARTITION BY LIST (tenant_id);
CREATE TABLE named_21 PARTITION OF named_2 (b CONSTRAINT own_b NOT NULL, a NOT NULL NO INHERIT) FOR VALUES IN ('t1');
COMMENT ON CONSTRAINT bn ON named IS 'b of all';
COMMENT ON CONSTRAINT bn ON named_1 IS 'a of 1';
COMMENT ON CONSTRAINT own_b ON named_21 IS 'b of 21';
INSERT INTO named VALUES ('t1', 'a', 'b', 'c', 1), ('t1', 'a', 'b', 'c', 2);
CREATE TABLE named_before AS SELECT * FROM not_nulls('named.*');
SELECT * FROM named_before;
SELECT envelope_protect('named', 'tenant_id', '{a,b,c}', '{b}');
SELECT * FROM not_nulls('named.*');
SELECT outcome('UPDATE named SET a = NULL WHERE k = 1') AS a, outcome('UPDATE named SET b = NULL WHERE k = 1') AS b, outcome('INSERT INTO named VALUES (''t1'', NULL, ''b'', ''c'', 1)') AS inserted;
CREATE TABLE named_3 PARTITION OF named FOR VALUES IN (3);
DROP TABLE named_3;
SELECT envelope_unprotect('named');
SELECT (SELECT array_agg(line) FROM named_before) = (SELECT array_agg(line) FROM not_nulls('named.*')) AS same;
ALTER TABLE named ALTER b DROP NOT NULL, ALTER c DROP NOT NULL;
SELECT * FROM not_nulls('named.*');

-- One of a carrier, which a partition came with, gives way to what comes back.
CREATE TABLE came (tenant_id text, b text NOT NULL, k int) PARTITION BY LIST (k);
SELECT envelope_protect('came', 'tenant_id', '{b}');
SET envelope.stored_form = on;
CREATE TABLE came_1 (tenant_id text, b text CONSTRAINT carriers NOT NULL CONSTRAINT b__plain CHECK (b IS NULL), k int,
	b__sealed bytea CONSTRAINT sidecars NOT NULL CONSTRAINT b__sealed CHECK (envelope_is_sealed(b__sealed)));
RESET envelope.stored_form;
ALTER TABLE came ATTACH PARTITION came_1 FOR VALUES IN (1);
SELECT envelope_unprotect('came');
SELECT * FROM not_nulls('came.*');
DROP TABLE came;

-- Live
DROP TABLE named, named_before;
CREATE TABLE named (tenant_id text, a text, b text CONSTRAINT bn NOT NULL, k int) PARTITION BY LIST (k);
CREATE TABLE named_1 (gone int, tenant_id text, a text, b text CONSTRAINT own_b NOT NULL, k int);
ALTER TABLE named_1 DROP gone;
ALTER TABLE named ATTACH PARTITION named_1 FOR VALUES IN (1);
CREATE TABLE named_2 PARTITION OF named (b CONSTRAINT own_b NOT NULL) FOR VALUES IN (2);
COMMENT ON CONSTRAINT bn ON named IS 'b of all';
COMMENT ON CONSTRAINT own_b ON named_2 IS 'b of 2';
INSERT INTO named SELECT 't1', 'a', 'b', 1 + i % 2 FROM generate_series(1, 20) i;
CREATE TABLE named_before AS SELECT * FROM not_nulls('named.*');
SELECT * FROM named_before;
CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''half-way''; END';
CREATE TRIGGER halt BEFORE UPDATE ON named_2 FOR EACH ROW EXECUTE FUNCTION halt();
ALTER TABLE named_2 ENABLE ALWAYS TRIGGER halt;
CALL envelope_protect_live('named', 'tenant_id', '{a,b}');
SELECT * FROM not_nulls('named.*');
SELECT count(*), count(b) FROM named WHERE b IS NOT NULL;
SELECT outcome('INSERT INTO named VALUES (''t1'', ''a'', NULL, 1)') AS b;
SELECT outcome('ALTER TABLE named DROP CONSTRAINT bn') AS dropped;
BEGIN;
SELECT envelope_unprotect('named');
SELECT (SELECT array_agg(line) FROM named_before) = (SELECT array_agg(line) FROM not_nulls('named.*')) AS same;
ROLLBACK;
DROP TRIGGER halt ON named_2;
CALL envelope_protect_live('named', 'tenant_id', '{a,b}');
SELECT * FROM not_nulls('named.*');
SELECT envelope_unprotect('named');
SELECT (SELECT array_agg(line) FROM named_before) = (SELECT array_agg(line) FROM not_nulls('named.*')) AS same;
DROP TABLE loose, loose_before, named, named_before;
DROP FUNCTION not_nulls, halt;
