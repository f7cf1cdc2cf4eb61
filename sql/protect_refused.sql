-- What cannot be protected is refused before anything is changed, with the reason
-- and what to do about it.

CREATE TABLE refusals (id integer PRIMARY KEY, tenant_id text, a text, b text, c integer, n numeric(10,2), f double precision, j jsonb, ch char(5), bo boolean, m money);
CREATE FUNCTION refused(columns name[], searchable name[] DEFAULT '{}', tenant name DEFAULT 'tenant_id') RETURNS text LANGUAGE sql AS $$
	SELECT message(format('SELECT envelope_protect(''refusals'', %L, %L, %L)', tenant, columns, searchable))
$$;

-- Arguments
SELECT refused('{nope}');
SELECT refused('{}');
SELECT refused('{a,a}');
SELECT refused('{a}', '{b}');
SELECT refused('{tenant_id}');
SELECT refused('{ctid}');
SELECT refused('{a}', '{}', 'nope');
SELECT refused('{a}', '{}', 'bo');
SELECT message($$SELECT envelope_protect('pg_class', 'relname', '{relacl}')$$);
SELECT message($$SELECT envelope_protect('envelope.keks', 'name', '{uri}')$$);
SELECT message($$SELECT envelope_unprotect('refusals')$$);
CREATE VIEW refusals_view AS SELECT * FROM refusals;
SELECT message($$SELECT envelope_protect('refusals_view', 'tenant_id', '{a}')$$);
DROP VIEW refusals_view;
CREATE ROLE regress_nobody_else;
SELECT envelope_grant('regress_nobody_else', 'admin');
SET ROLE regress_nobody_else;
SELECT message($$SELECT envelope_protect('refusals', 'tenant_id', '{a}')$$);
RESET ROLE;
SELECT envelope_revoke('regress_nobody_else', 'admin');
DROP ROLE regress_nobody_else;

-- Types
SELECT refused('{m}');
SELECT refused('{n}', '{n}');
SELECT refused('{f}', '{f}');
SELECT refused('{j}', '{j}');
SELECT refused('{ch}', '{ch}');
SELECT refused('{bo}', '{bo}');
-- What would give values away is made searchable only by force.
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE DOMAIN yes_or_no AS boolean;
CREATE TABLE few (tenant_id text, b boolean, e colour, y yes_or_no, country text, surname text, email text, UNIQUE (tenant_id, email, y));
SELECT message($$SELECT envelope_protect('few', 'tenant_id', '{e}', '{e}')$$), message($$SELECT envelope_protect('few', 'tenant_id', '{y}')$$) AS by_index;
INSERT INTO few SELECT 't' || 1 + i % 2, i % 3 = 0, (array['red', 'green'])[1 + i % 2]::colour, true, 'country ' || i % 7,
	CASE WHEN i % 15 = 0 THEN 'smith' ELSE 'name ' || i END, 'user ' || i FROM generate_series(1, 400) i;
SELECT envelope_protect('few', 'tenant_id', '{b,e,y,country,surname,email}', '{b,e,country,surname}', force => true);
SELECT count(*) FROM few WHERE tenant_id = 't1' AND b AND e = 'red' AND country = 'country 3';
ANALYZE few;
SELECT * FROM envelope_doctor() WHERE subject ~ 'few' ORDER BY finding COLLATE "C";
DROP TABLE few;
DROP DOMAIN yes_or_no;
DROP TYPE colour;

CREATE DOMAIN filled AS text CHECK (value IS NOT NULL);
CREATE TYPE pair AS (x integer, y integer);
ALTER TABLE refusals ADD d filled DEFAULT '', ADD p pair, ADD g integer GENERATED ALWAYS AS (c + 1) STORED, ADD i integer GENERATED ALWAYS AS IDENTITY, ADD a__sealed integer;
SELECT refused('{d}');
SELECT refused('{p}');
SELECT refused('{g}');
SELECT refused('{i}');
SELECT refused('{a}');
SELECT refused('{c}');
ALTER TABLE refusals DROP d, DROP p, DROP g, DROP i, DROP a__sealed;

-- What uses a column
CREATE TABLE others (id integer PRIMARY KEY, a text UNIQUE, FOREIGN KEY (id) REFERENCES refusals);
ALTER TABLE refusals ADD CONSTRAINT to_others FOREIGN KEY (a) REFERENCES others (a);
SELECT refused('{a}');
ALTER TABLE refusals DROP CONSTRAINT to_others;
SELECT message($$SELECT envelope_protect('others', 'a', '{id}')$$);
SELECT message($$SELECT envelope_protect('refusals', 'tenant_id', '{id}')$$);
DROP TABLE others;
ALTER TABLE refusals ADD CONSTRAINT excluded EXCLUDE (a WITH =);
SELECT refused('{a}');
ALTER TABLE refusals DROP CONSTRAINT excluded;
ALTER TABLE refusals ADD CONSTRAINT whole CHECK (refusals IS NOT NULL);
SELECT refused('{a}');
ALTER TABLE refusals DROP CONSTRAINT whole;
CREATE STATISTICS refusals_statistics ON a, b FROM refusals;
SELECT refused('{b}');
DROP STATISTICS refusals_statistics;
SET client_min_messages = error;
CREATE PUBLICATION refusals_publication FOR TABLE refusals (id, a) WHERE (id > 1);
SELECT refused('{a}');
DROP PUBLICATION refusals_publication;
RESET client_min_messages;
CREATE MATERIALIZED VIEW refusals_copy AS SELECT a FROM refusals;
SELECT refused('{a}');
DROP MATERIALIZED VIEW refusals_copy;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER zzzz BEFORE INSERT ON refusals FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT refused('{a}');
DROP TRIGGER zzzz ON refusals;

-- Indexes, by name
CREATE INDEX refusals_index ON refusals (a);
SELECT refused('{a}');
DROP INDEX refusals_index;
CREATE UNIQUE INDEX refusals_index ON refusals (a);
SELECT refused('{a}');
DROP INDEX refusals_index;
CREATE UNIQUE INDEX refusals_index ON refusals (tenant_id, n);
SELECT refused('{n}');
DROP INDEX refusals_index;
CREATE INDEX refusals_index ON refusals (lower(a));
SELECT refused('{a}', '{a}');
DROP INDEX refusals_index;
CREATE INDEX refusals_index ON refusals (id) WHERE a <> '';
SELECT refused('{a}', '{a}');
DROP INDEX refusals_index;
CREATE INDEX refusals_index ON refusals (id) INCLUDE (a);
SELECT refused('{a}', '{a}');
DROP INDEX refusals_index;
CREATE INDEX refusals_index ON refusals (a text_pattern_ops);
SELECT refused('{a}', '{a}');
DROP INDEX refusals_index;
CREATE INDEX refusals_index ON refusals USING gin (j);
SELECT refused('{j}');
DROP INDEX refusals_index;

-- Inheritance
CREATE TABLE heir () INHERITS (refusals);
SELECT refused('{a}');
SELECT message($$SELECT envelope_protect('heir', 'tenant_id', '{a}')$$);
DROP TABLE heir;

-- Partitions that are in another server
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE TABLE scattered (tenant_id text, a text) PARTITION BY LIST (tenant_id);
CREATE TABLE scattered_1 PARTITION OF scattered FOR VALUES IN ('t1') PARTITION BY LIST (tenant_id);
CREATE FOREIGN TABLE scattered_1a PARTITION OF scattered_1 DEFAULT SERVER elsewhere;
SELECT message($$SELECT envelope_protect('scattered', 'tenant_id', '{a}')$$);
ALTER TABLE scattered_1 DETACH PARTITION scattered_1a;
SELECT envelope_protect('scattered', 'tenant_id', '{a}');
ALTER TABLE scattered_1a ADD a__sealed bytea, ADD CONSTRAINT a__plain CHECK (a IS NULL), ADD CONSTRAINT a__sealed CHECK (envelope_is_sealed(a__sealed));
SELECT message('ALTER TABLE scattered_1 ATTACH PARTITION scattered_1a DEFAULT');
CREATE TABLE scattered_2 (tenant_id text, a text, a__sealed bytea, CONSTRAINT a__plain CHECK (a IS NULL), CONSTRAINT a__sealed CHECK (envelope_is_sealed(a__sealed))) PARTITION BY LIST (tenant_id);
ALTER TABLE scattered_2 ATTACH PARTITION scattered_1a DEFAULT;
SELECT message($$ALTER TABLE scattered ATTACH PARTITION scattered_2 FOR VALUES IN ('t2')$$);
SELECT message('CREATE FOREIGN TABLE scattered_1b PARTITION OF scattered_1 DEFAULT SERVER elsewhere');
CREATE TABLE gathered (tenant_id text, a text);
SELECT envelope_protect('gathered', 'tenant_id', '{a}');
SELECT message('CREATE FOREIGN TABLE gathered_1 () INHERITS (gathered) SERVER elsewhere');
SELECT message('CREATE FOREIGN TABLE gathered_1 (LIKE gathered INCLUDING ALL) SERVER elsewhere') AS alike, outcome('CREATE FOREIGN TABLE gathered_1 (LIKE gathered) SERVER elsewhere') AS in_part;
CREATE FOREIGN TABLE other_table (a text) SERVER elsewhere;
DROP TABLE scattered, scattered_2, gathered;
DROP FOREIGN TABLE other_table;
DROP SERVER elsewhere;
DROP FOREIGN DATA WRAPPER elsewhere;

-- None of it has left anything; and it can be protected.
\d refusals
SELECT envelope_protect('refusals', 'tenant_id', '{a,b,c,n,f,j,ch,bo}', '{b,c}');
SELECT refused('{a}');
SELECT refused('{a__sealed}');
SELECT refused('{m}', '{}', 'b');
INSERT INTO refusals VALUES (1, 't1', 'a', 'b', -1, 1.50, '-0', '{"a": [1, null]}', 'x', true);
SELECT a, b, c, n, f, j, ch || '|' AS ch, bo FROM refusals;
SET envelope.unreadable = 'null';
SELECT message('UPDATE refusals SET a = a');
RESET envelope.unreadable;
-- What is sealed can be written as it is, by whoever sees it: its own tenant's, well formed, and without plaintext beside it.
SELECT message($$INSERT INTO refusals (id, tenant_id, a__sealed) VALUES (2, 't1', '\x00')$$);
SELECT message($$INSERT INTO refusals (id, tenant_id, a__sealed) VALUES (2, 't1', envelope_encrypt('t2', 'x', 'public.refusals.a'))$$);
SELECT message($$INSERT INTO refusals (id, tenant_id, a, a__sealed) VALUES (2, 't1', 'x', envelope_encrypt('t1', 'x', 'public.refusals.a'))$$);
INSERT INTO refusals (id, tenant_id, a__sealed) VALUES (2, 't1', envelope_encrypt('t1', 'by hand', 'public.refusals.a'));
SELECT a FROM refusals WHERE id = 2;
DROP TABLE refusals;
DROP FUNCTION refused, nothing;
DROP DOMAIN filled;
DROP TYPE pair;
