-- Protected tables are written as their plaintext twins are.

SET search_path = twins, public;
CREATE TABLE people (
	id integer PRIMARY KEY,
	tenant_id text NOT NULL DEFAULT 't1',
	email text,
	ssn varchar(11) DEFAULT 'none',
	tags text[],
	visits integer DEFAULT 0,
	UNIQUE (tenant_id, email));
CREATE TABLE people_twin (LIKE people INCLUDING ALL);
SELECT envelope_protect('people', 'tenant_id', '{email,ssn,tags,visits}', '{email}');
CREATE TABLE news (id integer, tenant_id text, email text, ssn text);
INSERT INTO news VALUES (1, 't1', 'ann', '111'), (2, 't1', 'new', '222'), (3, 't2', 'ann', '333'), (7, 't2', NULL, NULL);

-- The outcome of a statement on either (# is "people" or "people_twin"), and
-- whether the tables are the same then.
CREATE FUNCTION alike(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	protected text := answer(replace(statement, '#', 'people'), '');
	plain text := answer(replace(statement, '#', 'people_twin'), '');
BEGIN
	IF protected IS DISTINCT FROM plain THEN
		RETURN format('protected: %s, twin: %s', protected, plain);
	ELSIF EXISTS (
		(SELECT id, tenant_id, email, ssn, tags, visits FROM people EXCEPT ALL TABLE people_twin)
		UNION ALL
		(TABLE people_twin EXCEPT ALL SELECT id, tenant_id, email, ssn, tags, visits FROM people)) THEN
		RETURN 'the tables differ';
	END IF;
	RETURN CASE WHEN plain LIKE '[%' THEN jsonb_array_length(plain::jsonb) || ' rows' ELSE plain END;
END
$$;

CREATE TABLE writes (n integer GENERATED ALWAYS AS IDENTITY, s text);
INSERT INTO writes (s) VALUES
	-- INSERT
	($$INSERT INTO # VALUES (1, 't1', 'ann', '1', '{a,b}', 5), (2, 't1', 'bob', NULL, NULL, 0), (3, 't2', 'ann', '3', '{}', NULL) RETURNING id, email, ssn, tags, visits$$),
	($$INSERT INTO # (id, email) VALUES (4, 'dan') RETURNING tenant_id, email, ssn, visits$$),
	($$INSERT INTO # (id, email, ssn) VALUES (5, DEFAULT, DEFAULT), (6, 'eve', 'x') RETURNING id, email, ssn$$),
	($$INSERT INTO # (id, tenant_id, email) SELECT id + 6, tenant_id, email || '2' FROM # RETURNING id, upper(email)$$),
	($$INSERT INTO # (id, email) VALUES (1, 'ann')  RETURNING id$$),
	($$INSERT INTO # (id, email) VALUES (99, 'ann')  RETURNING id$$),
	($$INSERT INTO # (id, ssn) VALUES (99, '123456789012')  RETURNING id$$),
	($$INSERT INTO # (id, tenant_id) VALUES (99, NULL)  RETURNING id$$),
	-- UPDATE
	($$UPDATE # SET ssn = ssn || '9' WHERE id IN (1, 2) RETURNING id, ssn$$),
	($$UPDATE # SET visits = visits + 1 RETURNING id, visits$$),
	($$UPDATE # SET email = ssn, ssn = email WHERE id IN (1, 2) RETURNING id, email, ssn$$),
	($$UPDATE # SET (email, ssn) = ('ann', 'y') WHERE id = 1 RETURNING email, ssn$$),
	($$UPDATE # SET (email, ssn) = (SELECT email || id, ssn FROM news n WHERE n.id = #.id) WHERE id = 2 RETURNING email, ssn$$),
	($$UPDATE # SET (ssn, visits) = ROW (DEFAULT, DEFAULT) WHERE id = 3 RETURNING ssn, visits$$),
	($$UPDATE # SET ssn = NULL WHERE id = 6 RETURNING ssn$$),
	($$UPDATE # SET tags[2] = 'z' WHERE id < 3 RETURNING id, tags$$),
	($$UPDATE # SET tags[1:2] = '{p,q}', tags[4] = 'r' WHERE id = 1 RETURNING tags$$),
	($$UPDATE # SET tenant_id = 't2' WHERE id = 4 RETURNING tenant_id, email, ssn$$),
	($$UPDATE # SET tenant_id = 't2' WHERE id = 1 RETURNING id$$),
	($$UPDATE # SET tenant_id = 't2', email = 'moved' WHERE id = 1 RETURNING tenant_id, email, ssn$$),
	($$UPDATE # SET tenant_id = 't1', email = 'ann' WHERE id = 1 RETURNING tenant_id, email, ssn$$),
	($$UPDATE # p SET ssn = n.ssn FROM news n WHERE n.email = p.email AND n.tenant_id = p.tenant_id RETURNING p.id, p.ssn, n.id$$),
	($$UPDATE # p SET ssn = q.email FROM # q WHERE q.id = p.id + 1 AND q.id < 4 RETURNING p.id, p.ssn$$),
	($$UPDATE # SET ssn = '12345678901234' WHERE id = 1 RETURNING id$$),
	($$UPDATE # SET email = 'ann' WHERE id = 4 RETURNING id$$),
	-- ON CONFLICT
	($$INSERT INTO # (id, email) VALUES (20, 'ann') ON CONFLICT DO NOTHING RETURNING id$$),
	($$INSERT INTO # (id, email) VALUES (20, 'ann') ON CONFLICT (tenant_id, email) DO NOTHING RETURNING id$$),
	($$INSERT INTO # AS p (id, email, ssn) VALUES (20, 'ann', 'up'), (21, 'zoe', 'in') ON CONFLICT (email, tenant_id) DO UPDATE SET ssn = p.ssn || excluded.ssn, visits = p.visits + 1 RETURNING id, email, ssn, visits$$),
	($$INSERT INTO # AS p (id, email, ssn) VALUES (20, 'ann', 'up') ON CONFLICT (tenant_id, email) DO UPDATE SET ssn = excluded.ssn WHERE p.ssn <> excluded.ssn AND p.email = excluded.email RETURNING id, ssn$$),
	($$INSERT INTO # AS p (id, email, ssn) VALUES (20, 'ann', 'up') ON CONFLICT (tenant_id, email) DO UPDATE SET ssn = excluded.ssn WHERE p.ssn <> excluded.ssn RETURNING id, ssn$$),
	($$INSERT INTO # AS p (id, email) VALUES (1, 'other') ON CONFLICT (id) DO UPDATE SET email = excluded.email, tags = p.tags || excluded.email RETURNING email, tags$$),
	($$INSERT INTO # (id, email) VALUES (1, 'ann') ON CONFLICT (id) DO UPDATE SET (email, ssn) = (excluded.email, DEFAULT) RETURNING email, ssn$$),
	($$INSERT INTO # (id, email) VALUES (30, 'ann') ON CONFLICT ON CONSTRAINT #_tenant_id_email_key DO UPDATE SET visits = 100 RETURNING id, visits$$),
	($$INSERT INTO # (id, tenant_id, email) SELECT id + 40, tenant_id, email FROM news ON CONFLICT (tenant_id, email) DO UPDATE SET ssn = 'seen' RETURNING id, ssn$$),
	($$INSERT INTO # (id, email) VALUES (50, 'twice'), (51, 'twice') ON CONFLICT (tenant_id, email) DO UPDATE SET ssn = 'x' RETURNING id$$),
	($$INSERT INTO # (id, email) VALUES (50, 'ann') ON CONFLICT (email) DO NOTHING RETURNING id$$),
	-- DELETE
	($$DELETE FROM # WHERE ssn = 'none' AND email LIKE 'dan%' RETURNING id, email, tags$$),
	($$DELETE FROM # p USING news n WHERE p.email = n.email AND p.tenant_id = n.tenant_id AND n.id = 2 RETURNING p.email, n.id$$);
DO $$
DECLARE
	w record;
BEGIN
	-- One after the other: each begins with what the one before left.
	FOR w IN SELECT n, s FROM writes ORDER BY n LOOP
		RAISE INFO '% %', w.n, alike(w.s);
	END LOOP;
END
$$;

-- MERGE, which has no RETURNING before PostgreSQL 17
CREATE FUNCTION merged(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	protected bigint;
	plain bigint;
BEGIN
	EXECUTE replace(statement, '#', 'people');
	GET DIAGNOSTICS protected = ROW_COUNT;
	EXECUTE replace(statement, '#', 'people_twin');
	GET DIAGNOSTICS plain = ROW_COUNT;
	RETURN protected || ' ' || plain || ' ' || alike('SELECT 1 WHERE false');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT merged($$MERGE INTO # p USING news n ON p.tenant_id = n.tenant_id AND p.email = n.email
	WHEN MATCHED AND p.ssn = 'seen' THEN UPDATE SET ssn = n.ssn, visits = coalesce(p.visits, 0) + 1
	WHEN MATCHED THEN DELETE
	WHEN NOT MATCHED THEN INSERT (id, tenant_id, email, ssn) VALUES (n.id + 60, n.tenant_id, coalesce(n.email, 'none'), n.ssn)$$);
SELECT merged($$MERGE INTO # p USING (SELECT * FROM # WHERE id > 60) q ON p.id = q.id - 60
	WHEN MATCHED THEN UPDATE SET tags = ARRAY[p.email, q.email], tenant_id = p.tenant_id
	WHEN NOT MATCHED THEN DO NOTHING$$);
SELECT merged($$MERGE INTO # p USING news n ON p.id = n.id WHEN MATCHED THEN UPDATE SET email = 'same'$$);

-- CTEs that write
WITH moved AS (DELETE FROM people WHERE id > 60 RETURNING *),
	kept AS (INSERT INTO people (id, tenant_id, email, ssn, tags) SELECT id + 1, tenant_id, email, ssn, tags FROM moved RETURNING *)
SELECT m.id, k.id, m.email, k.email FROM moved m JOIN kept k USING (email) ORDER BY 1;
WITH moved AS (DELETE FROM people_twin WHERE id > 60 RETURNING *)
INSERT INTO people_twin SELECT id + 1, tenant_id, email, ssn, tags FROM moved;

-- Cursors, locks, prepared statements
CREATE FUNCTION by_cursor(relation text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c refcursor;
	r record;
BEGIN
	OPEN c FOR EXECUTE format('SELECT * FROM %I WHERE email IS NOT NULL ORDER BY id FOR UPDATE', relation);
	FETCH c INTO r;
	EXECUTE format('UPDATE %I SET ssn = $1 WHERE CURRENT OF ' || quote_ident(c::text), relation) USING 'c' || r.email;
	CLOSE c;
END
$$;
SELECT by_cursor('people'), by_cursor('people_twin');
SELECT alike($$SELECT 1 WHERE false$$);
PREPARE save (integer, text, text) AS INSERT INTO people (id, email, ssn) VALUES ($1, $2, $3)
	ON CONFLICT (tenant_id, email) DO UPDATE SET ssn = excluded.ssn RETURNING id, email, ssn;
SET plan_cache_mode = force_generic_plan;
EXECUTE save (70, 'gen', 'a');
EXECUTE save (71, 'gen', 'b');
EXECUTE save (71, NULL, NULL);
RESET plan_cache_mode;
-- A tool that has looked in the catalogs for what is unique names the term.
INSERT INTO people (id, email, ssn) VALUES (72, 'gen', 'c') ON CONFLICT (tenant_id, email__term) DO UPDATE SET ssn = excluded.ssn, email = excluded.email RETURNING id, email, ssn;
INSERT INTO people (id, email) VALUES (72, 'gen') ON CONFLICT (tenant_id, email__term) DO NOTHING;
DELETE FROM people WHERE id >= 70;

-- Rules, and views that can be written
CREATE TABLE log (id integer, was text, became text);
CREATE RULE log AS ON UPDATE TO people WHERE old.ssn IS DISTINCT FROM new.ssn DO ALSO INSERT INTO log VALUES (old.id, old.ssn, new.ssn);
CREATE VIEW t1_people AS SELECT id, tenant_id, email AS mail, ssn FROM people WHERE tenant_id = 't1' AND ssn <> 'bad' WITH CHECK OPTION;
UPDATE people SET ssn = 'ruled' WHERE id = 1;
SELECT * FROM log;
INSERT INTO t1_people VALUES (80, 't1', 'view', 'good') RETURNING *;
UPDATE t1_people SET ssn = ssn || '!' WHERE mail = 'view' RETURNING *;
SELECT outcome($$UPDATE t1_people SET ssn = 'bad' WHERE mail = 'view'$$);
SELECT outcome($$INSERT INTO t1_people VALUES (81, 't1', 'w', 'bad')$$);
DELETE FROM t1_people WHERE mail = 'view' RETURNING mail, ssn;
DROP RULE log ON people;

-- Policies over protected columns
ALTER TABLE people ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON people FOR SELECT USING (ssn IS DISTINCT FROM 'secret');
CREATE POLICY inserted ON people FOR INSERT WITH CHECK (email <> 'forbidden');
CREATE POLICY updated ON people FOR UPDATE USING (true) WITH CHECK (email <> 'forbidden');
GRANT ALL ON people TO regress_teller;
SET ROLE regress_teller;
INSERT INTO people (id, email, ssn) VALUES (90, 'rls', 'open') RETURNING email, ssn;
SELECT outcome($$INSERT INTO people (id, email) VALUES (91, 'forbidden')$$);
SELECT outcome($$UPDATE people SET email = 'forbidden' WHERE id = 90$$);
SELECT outcome($$UPDATE people SET ssn = 'secret' WHERE id = 90 RETURNING id$$);
UPDATE people SET ssn = 'opener' WHERE id = 90 RETURNING ssn;
RESET ROLE;
ALTER TABLE people DISABLE ROW LEVEL SECURITY;

-- What is written keeps its bytes unless it is another value.
SET envelope.stored_form = on;
CREATE TABLE before AS SELECT id, email__sealed, ssn__sealed FROM people;
RESET envelope.stored_form;
UPDATE people SET email = email, ssn = ssn, visits = 7, tags = NULL;
SET envelope.stored_form = on;
SELECT count(*) AS rows, count(*) FILTER (WHERE p.email__sealed IS NOT DISTINCT FROM b.email__sealed
	AND p.ssn__sealed IS NOT DISTINCT FROM b.ssn__sealed) AS kept FROM people p JOIN before b USING (id);
SELECT count(*) AS carriers FROM people WHERE email IS NOT NULL OR ssn IS NOT NULL OR tags IS NOT NULL OR visits IS NOT NULL;
RESET envelope.stored_form;

-- No writing while reading may give null instead.
SET envelope.unreadable = 'null';
SELECT message($$UPDATE people SET ssn = ssn || 'x'$$);
RESET envelope.unreadable;
