-- CHECK constraints of a protected table: those that the trigger has made true
-- are not evaluated once more, and all others are.

CREATE TABLE parcels (
	id integer PRIMARY KEY,
	tenant_id text NOT NULL,
	code text CONSTRAINT code_length CHECK (length(code) > 2),
	weight integer CONSTRAINT weight_positive CHECK (weight > 0),
	note text,
	CONSTRAINT noted CHECK (weight < 100 OR note IS NOT NULL),
	UNIQUE (tenant_id, code));
SELECT envelope_protect('parcels', 'tenant_id', '{code}');
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'parcels'::regclass AND contype = 'c' ORDER BY 1;

-- Whose constraints hold, and under which name
CREATE FUNCTION violated(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN check_violation THEN
	GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME;
	RETURN name;
END
$$;
SELECT violated($$INSERT INTO parcels VALUES (1, 't1', 'abc', 1)$$) AS good,
	violated($$INSERT INTO parcels VALUES (2, 't1', 'ab', 1)$$) AS moved,
	violated($$INSERT INTO parcels VALUES (2, 't1', 'abd', 0)$$) AS kept,
	violated($$INSERT INTO parcels VALUES (2, 't1', 'abd', 100)$$) AS of_two;
SELECT violated($$UPDATE parcels SET code = 'x'$$) AS moved, violated($$UPDATE parcels SET weight = -1$$) AS kept,
	violated($$UPDATE parcels SET weight = 100$$) AS of_two, violated($$UPDATE parcels SET weight = 100, note = 'heavy'$$) AS good;
SELECT violated($$INSERT INTO parcels VALUES (3, 't1', 'abc', 7) ON CONFLICT (tenant_id, code) DO UPDATE SET weight = 0$$) AS upsert,
	violated($$INSERT INTO parcels VALUES (3, 't1', 'abc', 0) ON CONFLICT (tenant_id, code) DO NOTHING$$) AS inserted,
	violated($$MERGE INTO parcels USING (VALUES (1)) v (id) ON parcels.id = v.id WHEN MATCHED THEN UPDATE SET weight = 0$$) AS merged,
	violated($$WITH w AS (UPDATE parcels SET weight = 0 RETURNING id) SELECT count(*) FROM w$$) AS in_with;

-- Not evaluated: the function that tells what is sealed is not called.
BEGIN;
SET LOCAL track_functions = 'all';
INSERT INTO parcels VALUES (4, 't1', 'four', 4);
UPDATE parcels SET code = 'vier' WHERE id = 4;
SELECT pg_stat_get_xact_function_calls('envelope_is_sealed'::regproc) AS calls;
COPY parcels (id, tenant_id, code, weight) FROM STDIN;
5	t1	five	5
\.
SELECT pg_stat_get_xact_function_calls('envelope_is_sealed'::regproc) AS calls;
COMMIT;

-- Where the trigger is not what it was made as, or not the last, they are. The
-- catalog is what a server leaves behind that does not preload the module.
UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 'parcels'::regclass AND tgname = 'zzz_envelope_seal';
\c -
SELECT violated($$INSERT INTO parcels VALUES (6, 't1', 'sechs', 6)$$) AS without_trigger;
UPDATE pg_trigger SET tgenabled = 'A' WHERE tgrelid = 'parcels'::regclass AND tgname = 'zzz_envelope_seal';
\c -
CREATE FUNCTION open_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id = 7 THEN
		NEW.code := 'seven';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER early BEFORE INSERT OR UPDATE ON parcels FOR EACH ROW EXECUTE FUNCTION open_again();
UPDATE pg_trigger SET tgname = 'zzzz' WHERE tgname = 'early';
\c -
SELECT violated($$INSERT INTO parcels VALUES (7, 't1', 'sieben', 7)$$) AS opened_again,
	violated($$INSERT INTO parcels VALUES (8, 't1', 'acht', 8)$$) AS good;
SELECT * FROM parcels ORDER BY id;
DROP TABLE parcels;
DROP FUNCTION open_again, violated;

-- NOT NULL of several columns of a table with rows goes to the sidecars, and back.
CREATE TABLE crates (tenant_id text, code text NOT NULL, weight integer NOT NULL, note text);
INSERT INTO crates VALUES ('t1', 'abc', 1);
SELECT envelope_protect('crates', 'tenant_id', '{code,weight,note}');
SELECT outcome($$INSERT INTO crates VALUES ('t1', 'abd', NULL)$$) AS weight, outcome($$UPDATE crates SET code = NULL$$) AS code, outcome($$UPDATE crates SET note = NULL RETURNING code$$) AS note;
SELECT attname FROM pg_attribute WHERE attrelid = 'crates'::regclass AND attnotnull AND attnum > 0 ORDER BY attnum;
SELECT envelope_unprotect('crates');
SELECT attname FROM pg_attribute WHERE attrelid = 'crates'::regclass AND attnotnull AND attnum > 0 ORDER BY attnum;
DROP TABLE crates;

-- So does that of partitions, which may be theirs alone, whatever place a column has.
CREATE TABLE chests (tenant_id text, code text NOT NULL, weight integer NOT NULL, note text, kind integer) PARTITION BY LIST (kind);
CREATE TABLE chests_1 (gone text, note text NOT NULL, kind integer NOT NULL, weight integer NOT NULL, code text NOT NULL, tenant_id text);
ALTER TABLE chests_1 DROP gone;
ALTER TABLE chests ATTACH PARTITION chests_1 FOR VALUES IN (1);
CREATE TABLE chests_2 PARTITION OF chests (weight NOT NULL) FOR VALUES IN (2) PARTITION BY LIST (tenant_id);
CREATE TABLE chests_21 PARTITION OF chests_2 (note NOT NULL) DEFAULT;
INSERT INTO chests VALUES ('t1', 'abc', 1, 'one', 1), ('t1', 'abd', 2, 'two', 2);
CREATE VIEW not_nulls AS SELECT attrelid::regclass AS relation, string_agg(attname, ' ' ORDER BY attname) AS columns
	FROM pg_attribute WHERE attrelid::regclass::text LIKE 'chests%' AND attnotnull AND attnum > 0 GROUP BY 1;
SELECT * FROM not_nulls ORDER BY relation::text;
SELECT envelope_protect('chests', 'tenant_id', '{code,weight,note}', '{code}');
SELECT * FROM not_nulls ORDER BY relation::text;
SELECT outcome($$UPDATE chests SET note = NULL WHERE kind = 1$$) AS note_1, outcome($$INSERT INTO chests VALUES ('t1', 'abe', 3, NULL, 2)$$) AS note_2, outcome($$UPDATE chests SET weight = NULL WHERE kind = 2$$) AS weight;
SELECT envelope_unprotect('chests');
SELECT * FROM not_nulls ORDER BY relation::text;
SELECT outcome($$UPDATE chests SET note = NULL WHERE kind = 1$$) AS note_1, outcome($$INSERT INTO chests VALUES ('t1', 'abe', 3, NULL, 2)$$) AS note_2, outcome($$UPDATE chests SET weight = NULL WHERE kind = 2$$) AS weight;
SELECT * FROM chests ORDER BY kind;
DROP VIEW not_nulls;
DROP TABLE chests;
