-- Triggers of the application on a protected table see and change it as before,
-- and so do partitions.

CREATE TABLE guests (id integer, tenant_id text NOT NULL, name text, phone text, age integer, note text DEFAULT 'x', PRIMARY KEY (tenant_id, id));
CREATE TABLE seen (n integer GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen (what) VALUES (concat_ws(' ', tg_name, tg_when, tg_op, tg_argv[0], tg_nargs,
		CASE WHEN tg_op <> 'INSERT' THEN concat_ws(',', old.name, old.phone, old.age) END, '->',
		CASE WHEN tg_op <> 'DELETE' THEN concat_ws(',', new.name, new.phone, new.age) END));
	RETURN CASE tg_op WHEN 'DELETE' THEN old ELSE new END;
END
$$;
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	new.name := upper(new.name);
	IF new.phone = 'none' THEN
		new.phone := NULL;
	END IF;
	IF new.age = 13 THEN
		RETURN NULL;
	END IF;
	RETURN new;
END
$$;
CREATE TRIGGER a_change BEFORE INSERT OR UPDATE ON guests FOR EACH ROW EXECUTE FUNCTION change();
CREATE TRIGGER watch_after AFTER INSERT OR UPDATE OR DELETE ON guests FOR EACH ROW EXECUTE FUNCTION watch('arg', '2');
CREATE TRIGGER watch_phone AFTER UPDATE OF phone ON guests FOR EACH ROW WHEN (old.phone IS DISTINCT FROM new.phone) EXECUTE FUNCTION watch();
COMMENT ON TRIGGER watch_after ON guests IS 'watches';
CREATE TABLE definitions AS SELECT tgname, pg_get_triggerdef(oid) AS definition, obj_description(oid, 'pg_trigger') AS comment FROM pg_trigger WHERE tgrelid = 'guests'::regclass;
SELECT envelope_protect('guests', 'tenant_id', '{name,phone,age}');
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'guests'::regclass AND tgname <> 'zzz_envelope_seal' ORDER BY tgname;

INSERT INTO guests VALUES (1, 't1', 'ann', 'none', 30), (2, 't1', 'bob', '123', 13), (3, 't2', 'eve', '456', 40);
SELECT id, tenant_id, name, phone, age FROM guests ORDER BY id;
UPDATE guests SET note = 'y' WHERE id = 3;
UPDATE guests SET phone = '789' WHERE id = 3;
UPDATE guests SET phone = '789' WHERE id = 3;
UPDATE guests SET phone = 'none', tenant_id = 't1' WHERE id = 3;
DELETE FROM guests WHERE id = 1;
SELECT id, tenant_id, name, phone, age FROM guests ORDER BY id;
SELECT what FROM seen ORDER BY n;

-- What triggers leave alone keeps its bytes.
CREATE FUNCTION bytes() RETURNS SETOF bytea LANGUAGE sql SET envelope.stored_form = on AS 'SELECT name__sealed FROM guests ORDER BY id';
CREATE TABLE kept AS SELECT bytes();
UPDATE guests SET note = 'z';
SELECT count(*) AS other_bytes FROM (SELECT bytes() EXCEPT SELECT bytes FROM kept) s;

-- Triggers made later are called in the same way; statements' see their rows too.
TRUNCATE seen;
CREATE TRIGGER later BEFORE UPDATE ON guests FOR EACH ROW WHEN (new.name LIKE 'N%' AND new.age > 1) EXECUTE FUNCTION watch();
CREATE FUNCTION watch_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen (what) SELECT concat_ws(' ', tg_name, o.name, '->', n.name) FROM old_rows o JOIN new_rows n USING (id);
	RETURN NULL;
END
$$;
CREATE TRIGGER statement AFTER UPDATE ON guests REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION watch_statement();
UPDATE guests SET name = 'new' WHERE id = 3;
UPDATE guests SET name = 'other' WHERE id = 3;
SELECT what FROM seen ORDER BY n;
SELECT message('CREATE TRIGGER zzzz BEFORE UPDATE ON guests FOR EACH ROW EXECUTE FUNCTION watch()');
SELECT outcome('ALTER TRIGGER later ON guests RENAME TO zzzz') AS renamed, outcome('DROP FUNCTION change()') AS in_use;
DROP TRIGGER later ON guests;
DROP TRIGGER statement ON guests;

-- A function that is renamed, or whose schema is, is called by its new name.
CREATE SCHEMA "Old";
ALTER FUNCTION change() SET SCHEMA "Old";
ALTER FUNCTION watch() RENAME TO "Watch it";
ALTER SCHEMA "Old" RENAME TO newer;
SELECT tgname, replace(encode(tgargs, 'escape'), '\000', ' ') AS arguments FROM pg_trigger WHERE tgrelid = 'guests'::regclass AND tgname <> 'zzz_envelope_seal' ORDER BY tgname;
TRUNCATE seen;
UPDATE guests SET name = 'again' WHERE id = 3;
SELECT what FROM seen ORDER BY n;
SELECT id, name FROM guests ORDER BY id;
ALTER FUNCTION newer.change() SET SCHEMA public;
ALTER ROUTINE "Watch it"() RENAME TO watch;
DROP SCHEMA newer;

SELECT envelope_unprotect('guests');
SELECT tgname, pg_get_triggerdef(oid) AS definition, obj_description(oid, 'pg_trigger') AS comment FROM pg_trigger WHERE tgrelid = 'guests'::regclass EXCEPT SELECT * FROM definitions;
SELECT * FROM definitions EXCEPT SELECT tgname, pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger') FROM pg_trigger WHERE tgrelid = 'guests'::regclass;
SELECT outcome('DROP FUNCTION change()') AS in_use;
TRUNCATE seen;
UPDATE guests SET phone = '1' WHERE id = 3;
SELECT what FROM seen ORDER BY n;

-- Partitions, with columns in another order, made before and after
CREATE TABLE visits (id integer, tenant_id text, secret text NOT NULL, day date, CONSTRAINT visits_secret UNIQUE (tenant_id, secret, day), CONSTRAINT not_empty CHECK (secret <> '')) PARTITION BY RANGE (day);
CREATE TABLE visits_1 (day date, dropped integer, secret text NOT NULL, tenant_id text, id integer, CONSTRAINT not_empty CHECK (secret <> ''));
ALTER TABLE visits_1 DROP COLUMN dropped;
ALTER TABLE visits ATTACH PARTITION visits_1 FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE FUNCTION watch_visit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen (what) VALUES (concat_ws(' ', tg_relid::regclass, old.secret, new.secret));
	RETURN NULL;
END
$$;
CREATE TRIGGER watch AFTER UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION watch_visit();
INSERT INTO visits VALUES (1, 't1', 'one', '2020-05-05'), (2, 't2', 'two', '2020-06-06');
SELECT message($$SELECT envelope_protect('visits_1', 'tenant_id', '{secret}')$$);
SELECT message($$SELECT envelope_protect('visits', 'tenant_id', '{day}')$$);
CREATE TABLE parts AS SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index WHERE indrelid IN ('visits'::regclass, 'visits_1'::regclass);
SELECT envelope_protect('visits', 'tenant_id', '{secret}');
CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
INSERT INTO visits VALUES (3, 't1', 'three', '2021-05-05');
SELECT tableoid::regclass, id, tenant_id, secret FROM visits ORDER BY id;
TRUNCATE seen;
UPDATE visits SET day = day + interval '1 year' WHERE id = 1;
UPDATE visits SET secret = 'TWO' WHERE secret = 'two' AND tenant_id = 't2';
UPDATE visits_2 SET secret = 'THREE' WHERE id = 3;
SELECT tableoid::regclass, id, tenant_id, secret FROM visits ORDER BY id;
SELECT what FROM seen ORDER BY n;
SELECT outcome($$INSERT INTO visits_1 VALUES ('2020-01-01', '', 't1', 4)$$) AS checked, outcome($$INSERT INTO visits VALUES (5, 't1', NULL, '2020-01-01')$$) AS not_null,
	outcome($$INSERT INTO visits VALUES (6, 't2', 'TWO', '2020-06-06')$$) AS unique;
SET envelope.stored_form = on;
SELECT tableoid::regclass, id, secret, envelope_is_sealed(secret__sealed) FROM visits ORDER BY id;
RESET envelope.stored_form;
-- A partition that is detached stays protected.
SELECT message('ALTER TABLE visits DETACH PARTITION visits_2 CONCURRENTLY');
ALTER TABLE visits DETACH PARTITION visits_2;
INSERT INTO visits_2 (id, tenant_id, secret, day) VALUES (9, 't1', 'nine', '2021-09-09');
SELECT id, secret FROM visits_2 ORDER BY id;
SET envelope.stored_form = on;
SELECT id, secret, envelope_is_sealed(secret__sealed) FROM visits_2 ORDER BY id;
RESET envelope.stored_form;
ALTER TABLE visits ATTACH PARTITION visits_2 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
SELECT tableoid::regclass, id, secret FROM visits ORDER BY id;
-- One that is attached brings its triggers, which then see what the application sees.
CREATE TABLE visits_4 (id integer, tenant_id text, secret text CONSTRAINT secret__plain CHECK (secret IS NULL), day date,
	secret__sealed bytea NOT NULL CONSTRAINT secret__sealed CHECK (envelope_is_sealed(secret__sealed)), secret__term bytea, CONSTRAINT not_empty CHECK (secret <> '' OR true));
CREATE FUNCTION brought() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '%: % -> %', TG_NAME, OLD.secret, NEW.secret; RETURN NEW; END$$;
CREATE TRIGGER brought BEFORE UPDATE ON visits_4 FOR EACH ROW EXECUTE FUNCTION brought();
CREATE TRIGGER zzzz BEFORE UPDATE ON visits_4 FOR EACH ROW EXECUTE FUNCTION brought();
SELECT message($$ALTER TABLE visits ATTACH PARTITION visits_4 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')$$);
DROP TRIGGER zzzz ON visits_4;
ALTER TABLE visits ATTACH PARTITION visits_4 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
INSERT INTO visits (id, tenant_id, secret, day) VALUES (10, 't1', 'ten', '2023-09-09');
UPDATE visits SET secret = 'eleven' WHERE id = 10;
UPDATE visits SET day = '2023-09-10' WHERE id = 10;
DROP TABLE visits_4;
DROP FUNCTION brought;
CREATE TABLE visits_3 (id integer, tenant_id text, secret text NOT NULL, day date, CONSTRAINT not_empty CHECK (secret <> ''));
SELECT envelope_protect('visits_3', 'tenant_id', '{secret}', '{secret}');
SELECT message($$ALTER TABLE visits ATTACH PARTITION visits_3 FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')$$);
DROP TABLE visits_2, visits_3;
SELECT envelope_unprotect('visits');
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index WHERE indrelid IN ('visits'::regclass, 'visits_1'::regclass) EXCEPT SELECT * FROM parts;
SELECT id, tenant_id, secret FROM visits ORDER BY id;
\d visits_1
DROP TABLE visits, guests, seen, definitions, kept, parts;
DROP FUNCTION watch, watch_visit, watch_statement, change, bytes;

-- A row that is saved as it was is the same for triggers that ask.
CREATE TABLE saves (id integer, tenant_id text, email text, UNIQUE (tenant_id, email));
INSERT INTO saves VALUES (1, 't1', 'ann');
SELECT envelope_protect('saves', 'tenant_id', '{email}');
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '% changes', TG_NAME; RETURN NEW; END$$;
CREATE TRIGGER changed BEFORE UPDATE ON saves FOR EACH ROW WHEN (old.* IS DISTINCT FROM new.*) EXECUTE FUNCTION changed();
CREATE TRIGGER redundant BEFORE UPDATE ON saves FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
WITH saved AS (UPDATE saves SET email = 'ann' RETURNING id) SELECT count(*) FROM saved;
WITH saved AS (UPDATE saves SET email = 'bob' RETURNING id) SELECT count(*) FROM saved;
DROP TABLE saves;
DROP FUNCTION changed;
