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
