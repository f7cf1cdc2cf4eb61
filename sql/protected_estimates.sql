-- Row estimates: for a protected table as for its plaintext twin, where terms and
-- sidecars tell; else as PostgreSQL has it for what it knows nothing of.

CREATE TABLE readers_twin (
	id integer PRIMARY KEY,
	tenant_id text NOT NULL,
	email text,
	city text,
	born date,
	shelf varchar(20),
	UNIQUE (tenant_id, email));
CREATE TABLE readers (LIKE readers_twin INCLUDING ALL);
SELECT envelope_protect('readers', 'tenant_id', '{email,city,born,shelf}', '{email,city}');
-- Nine in ten rows are one tenant's; a quarter has no email; 50 cities, 100 shelves
INSERT INTO readers_twin
	SELECT g, CASE WHEN g % 10 > 0 THEN 't1' ELSE 't2' END, CASE WHEN g % 4 > 0 THEN 'user' || g END,
		'city' || g / 10 % 50, date '2000-01-01' + g * 11 % 3000, 'shelf' || g / 7 % 100
	FROM generate_series(1, 10000) g;
INSERT INTO readers (id, tenant_id, email, city, born, shelf)
	SELECT id, tenant_id, email, city, born, shelf FROM readers_twin;
CREATE INDEX ON readers_twin (tenant_id, city);
CREATE TABLE visitors AS SELECT g AS id, 't1' AS tenant_id, 'user' || g AS email, 'city' || g % 50 AS city FROM generate_series(1, 500) g;
ANALYZE readers, readers_twin, visitors;

CREATE FUNCTION estimate(statement text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || statement INTO plan;
	RETURN plan #>> '{0,Plan,Plan Rows}';
END
$$;
CREATE TABLE asked (n integer GENERATED ALWAYS AS IDENTITY, statement text);
INSERT INTO asked (statement) VALUES
	-- with a tenant
	($$SELECT FROM # WHERE tenant_id = 't1' AND email = 'user2'$$),
	($$SELECT FROM # WHERE tenant_id = 't1' AND city = 'city7'$$),
	($$SELECT FROM # WHERE tenant_id = 't2' AND city = 'city7'$$),
	($$SELECT FROM # WHERE tenant_id = 't2' AND city IN ('city7', 'city8')$$),
	-- and without
	($$SELECT FROM # WHERE email = 'user2'$$),
	($$SELECT FROM # WHERE email <> 'user2'$$),
	($$SELECT FROM # WHERE city = 'city7'$$),
	($$SELECT FROM # WHERE city IN ('city7', 'city8')$$),
	-- null or not
	($$SELECT FROM # WHERE email IS NULL$$),
	($$SELECT FROM # WHERE email IS NOT NULL$$),
	($$SELECT FROM # WHERE shelf IS NULL$$),
	-- groups
	($$SELECT email FROM # GROUP BY email$$),
	($$SELECT DISTINCT city FROM #$$),
	($$SELECT tenant_id, city FROM # GROUP BY tenant_id, city$$),
	-- joins
	($$SELECT FROM visitors v JOIN # r ON r.email = v.email$$),
	($$SELECT FROM visitors v JOIN # r ON r.city = v.city$$),
	($$SELECT FROM visitors v LEFT JOIN # r ON r.city = v.city$$);
SELECT n, estimate(replace(statement, '#', 'readers')) BETWEEN
	estimate(replace(statement, '#', 'readers_twin')) * 0.7 - 1 AND
	estimate(replace(statement, '#', 'readers_twin')) * 1.4 + 1 AS as_for_twin
FROM asked ORDER BY n;

-- The same for a parameter that the planner does not know
PREPARE protected (text, text) AS SELECT FROM readers WHERE tenant_id = $1 AND city = $2;
PREPARE plain (text, text) AS SELECT FROM readers_twin WHERE tenant_id = $1 AND city = $2;
SET plan_cache_mode = force_generic_plan;
SELECT estimate($$EXECUTE protected ('t1', 'city7')$$) = estimate($$EXECUTE plain ('t1', 'city7')$$) AS as_for_twin;
RESET plan_cache_mode;

-- What has an order is not known, nor how many values there are without terms;
-- but that can be told.
SELECT estimate($$SELECT FROM readers WHERE born < '2003-01-01'$$) AS below, estimate($$SELECT FROM readers WHERE born BETWEEN '2003-01-01' AND '2003-02-01'$$) AS range,
	estimate($$SELECT FROM readers WHERE city BETWEEN 'city1' AND 'city2'$$) AS searchable_range, estimate($$SELECT FROM readers WHERE city LIKE 'city1%'$$) AS pattern,
	estimate($$SELECT FROM readers WHERE shelf = 'shelf7'$$) AS equal;
ALTER TABLE readers ALTER COLUMN shelf SET (n_distinct = 100);
ANALYZE readers;
SELECT estimate($$SELECT FROM readers WHERE shelf = 'shelf7'$$) AS equal, estimate($$SELECT DISTINCT shelf FROM readers$$) AS groups;

-- No plan uses the index that the planner is told of: there is none.
SET enable_seqscan = off;
SELECT count(*) FROM readers;
SELECT count(*) FROM readers WHERE city = 'city7' OR shelf = 'shelf7';
SELECT count(*) FROM readers WHERE shelf = 'shelf7' AND false;
SELECT count(*) FROM readers WHERE shelf = ANY ('{}');
SELECT count(*) FROM readers WHERE tenant_id = 't1' AND city = ANY ('{}');
RESET enable_seqscan;

-- An index on the term alone is costed for what it finds.
CREATE INDEX ON readers (city);
DROP INDEX readers_city__term_idx;
SET plan_cache_mode = force_generic_plan;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) EXECUTE protected ('t2', 'city7');
RESET enable_bitmapscan;
RESET plan_cache_mode;
SELECT estimate($$SELECT FROM readers WHERE tenant_id = 't2' AND city = 'city7'$$) < 20 AS too_low;
CREATE STATISTICS readers_city (dependencies) ON tenant_id, city__term FROM readers;
ANALYZE readers;
SELECT estimate($$SELECT FROM readers WHERE tenant_id = 't2' AND city = 'city7'$$) BETWEEN 10 AND 40 AS told;

-- A role that may read finds the same; statistics hold no value.
CREATE ROLE regress_reader;
SELECT envelope_grant('regress_reader', 'use');
GRANT SELECT ON readers, readers_twin, asked TO regress_reader;
SET ROLE regress_reader;
SELECT estimate($$SELECT FROM readers WHERE city = 'city7'$$) = estimate($$SELECT FROM readers_twin WHERE city = 'city7'$$) AS as_for_twin;
RESET ROLE;
SELECT attname, null_frac, n_distinct, most_common_vals, histogram_bounds FROM pg_stats
WHERE tablename = 'readers' AND attname IN ('email', 'city', 'born', 'shelf') ORDER BY attname;

-- Partitions, each and all
CREATE TABLE loans (id integer, tenant_id text, city text, day integer) PARTITION BY RANGE (day);
CREATE TABLE loans_1 PARTITION OF loans FOR VALUES FROM (0) TO (1);
CREATE TABLE loans_2 PARTITION OF loans FOR VALUES FROM (1) TO (2);
SELECT envelope_protect('loans', 'tenant_id', '{city}', '{city}');
INSERT INTO loans (id, tenant_id, city, day) SELECT g, 't' || 1 + g % 2, 'city' || g / 10 % 50, g / 2 % 2 FROM generate_series(1, 4000) g;
ANALYZE loans, loans_1, loans_2;
SELECT estimate($$SELECT FROM loans WHERE city = 'city7'$$) AS "80", estimate($$SELECT FROM loans_1 WHERE city = 'city7'$$) AS "40",
	estimate($$SELECT FROM loans WHERE tenant_id = 't1' AND city = 'city7'$$) AS "40", estimate($$SELECT DISTINCT city FROM loans$$) AS "50";

DROP TABLE loans, readers, readers_twin, visitors, asked;
DROP FUNCTION estimate;
DROP OWNED BY regress_reader;
DROP ROLE regress_reader;
