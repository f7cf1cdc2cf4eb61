-- The functions in the places where people use functions.

-- Generated columns and expression indexes over the immutable ones
CREATE TABLE people (
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant text NOT NULL,
	email bytea CHECK (envelope_is_sealed(email)),
	email_term bytea,
	email_key bigint GENERATED ALWAYS AS (envelope_key_id(email)) STORED,
	note text,
	note_term bytea GENERATED ALWAYS AS (envelope_blind_index(tenant, note, 'note')) STORED);
CREATE INDEX people_key ON people (envelope_key_id(email));
CREATE INDEX people_note ON people (envelope_encrypt_deterministic(tenant, note, 'note'));
CREATE UNIQUE INDEX people_email ON people (tenant, email_term);
CREATE FUNCTION seal_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.email_term := envelope_blind_index(NEW.tenant, convert_from(NEW.email, 'UTF8'), 'email');
	NEW.email := envelope_encrypt(NEW.tenant, convert_from(NEW.email, 'UTF8'), 'email');
	RETURN NEW;
END
$$;
CREATE TRIGGER seal BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION seal_person();
INSERT INTO people (tenant, email, note)
	SELECT 't' || (1 + g % 2), convert_to('user' || g || '@example.com', 'UTF8'), 'note ' || g FROM generate_series(1, 1000) g;
SELECT count(*) AS rows, count(*) FILTER (WHERE envelope_is_sealed(email)) AS sealed, count(DISTINCT email_key) AS keys FROM people;
SELECT message($$INSERT INTO people (tenant, email) VALUES ('t1', 'user2@example.com')$$) LIKE '23505%' AS unique_by_term;
SELECT outcome($$UPDATE people SET email = 'plain' WHERE id = 1$$) AS plain_refused;
ANALYZE people;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM people
	WHERE envelope_encrypt_deterministic(tenant, note, 'note') = '\x00';
EXPLAIN (COSTS OFF) SELECT id FROM people WHERE envelope_key_id(email) = 5;
SELECT envelope_decrypt(tenant, email, 'email') FROM people
	WHERE tenant = 't1' AND email_term = envelope_blind_index('t1', 'user500@example.com', 'email');
SELECT note FROM people WHERE envelope_encrypt_deterministic(tenant, note, 'note') = envelope_encrypt_deterministic('t2', 'note 7', 'note');
RESET enable_seqscan;
SELECT note FROM people WHERE note_term = envelope_blind_index('t1', 'note 8', 'note') AND tenant = 't1';

-- by a term too, under a generic plan
PREPARE by_term (text, text) AS SELECT id FROM people
	WHERE tenant = $1 AND email_term = envelope_blind_index($1, $2, 'email');
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) EXECUTE by_term ('t1', 'user500@example.com');
EXECUTE by_term ('t1', 'user500@example.com');
RESET enable_bitmapscan;
RESET enable_seqscan;
RESET plan_cache_mode;

-- Grouped, joined and sorted by what is deterministic
SELECT count(*) AS groups, sum(n) AS rows FROM (SELECT count(*) AS n FROM people
	GROUP BY tenant, envelope_encrypt_deterministic(tenant, left(note, 6), 'group')) s;
SELECT count(*) AS joined FROM people a JOIN people b ON b.tenant = a.tenant
	AND b.note_term = envelope_blind_index(a.tenant, a.note, 'note');

-- A view; what may be seen through it is checked as whoever looks.
CREATE VIEW open_people WITH (security_invoker) AS
	SELECT id, tenant, envelope_decrypt(tenant, email, 'email') AS email FROM people;
SELECT * FROM open_people WHERE id IN (1, 2) ORDER BY id;
CREATE ROLE regress_reader;
GRANT SELECT ON people, open_people TO regress_reader;
SET ROLE regress_reader;
SELECT message('SELECT email FROM open_people');
SELECT count(id) FROM open_people;
RESET ROLE;
-- also where the view's owner looks at the table
CREATE VIEW owners_people AS SELECT id, envelope_decrypt(tenant, email, 'email') AS email,
	envelope_blind_index(tenant, note) AS term FROM people;
CREATE FUNCTION owners_email(int) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
	AS $$SELECT envelope_decrypt(tenant, email, 'email') FROM people WHERE id = $1$$;
CREATE MATERIALIZED VIEW owners_copy AS SELECT id, envelope_decrypt(tenant, email, 'email') AS email FROM people WHERE id = 1;
GRANT SELECT ON owners_people, owners_copy TO regress_reader;
SET ROLE regress_reader;
SELECT outcome('SELECT email FROM owners_people') AS email, outcome('SELECT term FROM owners_people') AS term,
	outcome('SELECT count(id) FROM owners_people') AS id, outcome('SELECT 1 FROM owners_people WHERE email = $$x$$') AS condition,
	outcome('SELECT owners_email(1)') AS by_definer, outcome('SELECT email FROM owners_copy') AS stored;
RESET ROLE;
DROP VIEW owners_people;
DROP MATERIALIZED VIEW owners_copy;
DROP FUNCTION owners_email;
SELECT envelope_grant('regress_reader', 'use');
SET ROLE regress_reader;
SELECT email FROM open_people WHERE id = 3;
RESET ROLE;
SELECT envelope_revoke('regress_reader', 'use');
DROP OWNED BY regress_reader;
DROP ROLE regress_reader;

-- Prepared statements, generic plans, PL/pgSQL
PREPARE find (text, text) AS SELECT envelope_decrypt($1, email, 'email') FROM people
	WHERE tenant = $1 AND email_term = envelope_blind_index($1, $2, 'email');
SET plan_cache_mode = force_generic_plan;
EXECUTE find ('t1', 'user10@example.com');
EXECUTE find ('t2', 'user11@example.com');
EXECUTE find ('t2', 'user10@example.com');
RESET plan_cache_mode;
-- past the executions after which a plan may become generic
EXECUTE find ('t1', 'user12@example.com');
EXECUTE find ('t2', 'user13@example.com');
EXECUTE find ('t1', 'user14@example.com');
EXECUTE find ('t2', 'user15@example.com');
EXECUTE find ('t1', 'user16@example.com');
EXECUTE find ('t2', 'user17@example.com');
EXECUTE find ('t1', 'user18@example.com');
SELECT envelope_suspend_tenant('t1');
EXECUTE find ('t1', 'user18@example.com');
EXECUTE find ('t2', 'user17@example.com');
SELECT envelope_resume_tenant('t1');
EXECUTE find ('t1', 'user18@example.com');
DO $$
DECLARE
	opened int := 0;
	refused int := 0;
	person record;
BEGIN
	FOR person IN SELECT * FROM people LIMIT 100 LOOP
		BEGIN
			PERFORM envelope_decrypt('t1', person.email, 'email');
			opened := opened + 1;
		EXCEPTION WHEN SQLSTATE 'VE004' THEN
			refused := refused + 1;
		END;
	END LOOP;
	RAISE NOTICE '% opened, % refused', opened, refused;
END
$$;

-- Parallel query
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SET parallel_leader_participation = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM people WHERE envelope_decrypt(tenant, email, 'email') LIKE 'user1%';
SELECT count(*) FROM people WHERE envelope_decrypt(tenant, email, 'email') LIKE 'user1%';
SELECT count(*) FROM people WHERE length(envelope_encrypt(tenant, note)) > 45;
SELECT outcome($$SELECT count(*) FROM people WHERE envelope_decrypt('t1', email, 'email') <> ''$$) AS error_in_a_worker;
EXPLAIN (COSTS OFF) SELECT max(length(envelope_encrypt(tenant, note))) FROM people;
SELECT max(length(envelope_encrypt(tenant, note))) - max(length(note)) AS sealed_in_workers FROM people;
-- keys that only this transaction knows, in its workers
BEGIN;
CREATE TABLE fresh AS SELECT g FROM generate_series(1, 1000) g;
SELECT envelope_create_tenant('fresh') > 0;
EXPLAIN (COSTS OFF) SELECT count(*) FROM fresh WHERE envelope_is_sealed(envelope_encrypt('fresh', g::text));
SELECT count(*) FROM fresh WHERE envelope_is_sealed(envelope_encrypt('fresh', g::text));
ROLLBACK;
RESET ALL;

-- INSERT ... SELECT, UPDATE ... FROM, RETURNING, MERGE
CREATE TABLE copies AS SELECT id, tenant, envelope_encrypt(tenant, envelope_decrypt(tenant, email, 'email'), 'copy') AS email FROM people;
UPDATE copies c SET email = envelope_encrypt(c.tenant, upper(envelope_decrypt(p.tenant, p.email, 'email')), 'copy')
	FROM people p WHERE p.id = c.id AND p.id <= 2 RETURNING envelope_decrypt(c.tenant, c.email, 'copy');
MERGE INTO copies c USING people p ON p.id = c.id AND p.id = 3
	WHEN MATCHED THEN UPDATE SET email = envelope_encrypt(c.tenant, 'merged', 'copy');
SELECT envelope_decrypt(tenant, email, 'copy') FROM copies WHERE id = 3;
MERGE INTO copies c USING (VALUES (4, 't1', 'four'), (-1, 't2', 'new')) n (id, tenant, email) ON n.id = c.id
	WHEN MATCHED AND envelope_decrypt(c.tenant, c.email, 'copy') = 'user4@example.com' THEN DELETE
	WHEN MATCHED THEN UPDATE SET email = NULL
	WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.tenant, envelope_encrypt(n.tenant, n.email, 'copy'));
SELECT id, envelope_decrypt(tenant, email, 'copy') FROM copies WHERE id IN (-1, 4);
INSERT INTO copies VALUES (-2, 't1', envelope_encrypt('t1', 'returned', 'copy')) RETURNING envelope_decrypt(tenant, email, 'copy'), envelope_is_sealed(email);
DELETE FROM copies WHERE envelope_decrypt(tenant, email, 'copy') = 'returned' RETURNING id;
CREATE UNIQUE INDEX copies_id ON copies (id);
INSERT INTO copies VALUES (3, 't2', envelope_encrypt('t2', 'upserted', 'copy'))
	ON CONFLICT (id) DO UPDATE SET email = envelope_encrypt(copies.tenant, envelope_decrypt(copies.tenant, copies.email, 'copy') || ' and ' || envelope_decrypt(excluded.tenant, excluded.email, 'copy'), 'copy')
	RETURNING tenant, envelope_decrypt(tenant, email, 'copy');
SELECT count(envelope_decrypt(tenant, email, 'copy')) FROM copies;

-- A path around the cache there is none: with the keys warm, no call is made.
SELECT envelope_warm(array['t1', 't2']) >= 0;
SELECT calls('unwrap') AS before \gset
SELECT count(envelope_decrypt(tenant, email, 'email')), count(envelope_encrypt(tenant, note)),
	count(envelope_encrypt_deterministic(tenant, note)), count(envelope_blind_index(tenant, note)),
	count(envelope_blind_index_of(tenant, email, 'email')), count(envelope_reencrypt(tenant, email, 'email')) FROM people;
INSERT INTO people (tenant, email, note) SELECT tenant, convert_to('copy of ' || id, 'UTF8'), note FROM people LIMIT 100;
UPDATE people SET email = envelope_reencrypt(tenant, email, 'email') WHERE id < 100;
SELECT calls('unwrap') - :before AS calls;

-- A look changes nothing.
SELECT calls('unwrap') AS before, calls('generate') AS generated, (SELECT count(*) FROM envelope.tenant_keys) AS keys \gset
SELECT outcome($$SELECT envelope_encrypt('never heard of', 'x')$$), outcome($$SELECT envelope_evict('never heard of')$$);
SELECT count(*) FROM envelope_doctor() WHERE severity = 'error';
EXPLAIN (COSTS OFF) SELECT envelope_encrypt('never heard of', note) FROM people WHERE id = 0;
PREPARE never AS SELECT envelope_encrypt('never heard of', $1);
SELECT calls('unwrap') - :before AS calls, calls('generate') - :generated AS generated, (SELECT count(*) FROM envelope.tenant_keys) - :keys AS keys;

-- Row-level security that binds a session to its tenant, as the setting does
CREATE ROLE regress_tenant;
CREATE POLICY own_rows ON people USING (tenant = current_setting('envelope.tenant'));
ALTER TABLE people ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON people TO regress_tenant;
SELECT envelope_grant('regress_tenant', 'use');
SET ROLE regress_tenant;
SET envelope.tenant = 't2';
SELECT count(envelope_decrypt(tenant, email, 'email')) = count(*) AS all_open, min(tenant), max(tenant) FROM people WHERE id <= 1000;
SELECT outcome('SELECT envelope_decrypt($$t1$$, email, $$email$$) FROM people') AS other;
RESET envelope.tenant;
SELECT count(*) AS unbound FROM people;
RESET ROLE;
ALTER TABLE people DISABLE ROW LEVEL SECURITY;
DROP OWNED BY regress_tenant;
DROP ROLE regress_tenant;

-- Partitions: each with a generated column and an index of its own
CREATE TABLE parts (tenant text NOT NULL, name text, v bytea,
	term bytea GENERATED ALWAYS AS (envelope_blind_index_of(tenant, v, 'parts')) STORED) PARTITION BY LIST (tenant);
CREATE TABLE parts_t1 PARTITION OF parts FOR VALUES IN ('t1');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE INDEX ON parts (tenant, term);
INSERT INTO parts (tenant, v) SELECT t, envelope_encrypt(t, n, 'parts') FROM unnest(array['t1', 't2', '42']) t, unnest(array['a', 'b']) n;
SELECT tenant, envelope_decrypt(tenant, v, 'parts') FROM parts WHERE term = envelope_blind_index(tenant, 'a', 'parts') ORDER BY 1;
SELECT outcome($$UPDATE parts SET tenant = '42' WHERE tenant = 't1'$$) AS moved_without_resealing;
UPDATE parts SET tenant = '42', v = envelope_encrypt('42', envelope_decrypt(tenant, v, 'parts'), 'parts') WHERE tenant = 't1'
	RETURNING tableoid::regclass, envelope_decrypt(tenant, v, 'parts'), term = envelope_blind_index('42', envelope_decrypt(tenant, v, 'parts'), 'parts') AS term;
DROP TABLE parts;

-- Doctor reports what stores opened values.
CREATE MATERIALIZED VIEW open_copy AS SELECT envelope_decrypt(tenant, email, 'email') AS email FROM people;
SELECT severity, subject, finding FROM envelope_doctor();
DROP MATERIALIZED VIEW open_copy;
DROP TABLE copies;
DROP TABLE people CASCADE;
