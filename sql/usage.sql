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
RESET ALL;

-- INSERT ... SELECT, UPDATE ... FROM, RETURNING, MERGE
CREATE TABLE copies AS SELECT id, tenant, envelope_encrypt(tenant, envelope_decrypt(tenant, email, 'email'), 'copy') AS email FROM people;
UPDATE copies c SET email = envelope_encrypt(c.tenant, upper(envelope_decrypt(p.tenant, p.email, 'email')), 'copy')
	FROM people p WHERE p.id = c.id AND p.id <= 2 RETURNING envelope_decrypt(c.tenant, c.email, 'copy');
MERGE INTO copies c USING people p ON p.id = c.id AND p.id = 3
	WHEN MATCHED THEN UPDATE SET email = envelope_encrypt(c.tenant, 'merged', 'copy');
SELECT envelope_decrypt(tenant, email, 'copy') FROM copies WHERE id = 3;
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

-- Doctor reports what stores opened values.
CREATE MATERIALIZED VIEW open_copy AS SELECT envelope_decrypt(tenant, email, 'email') AS email FROM people;
SELECT severity, subject, finding FROM envelope_doctor();
DROP MATERIALIZED VIEW open_copy;
DROP TABLE copies;
DROP TABLE people CASCADE;
