-- A table is protected while it is in use: batch after batch, each in a transaction
-- of its own; it can be interrupted, gone on with and taken back at any time.

CREATE TABLE members (id integer PRIMARY KEY, tenant_id text, email text NOT NULL, ssn varchar(11) CONSTRAINT ssn_length CHECK (length(ssn) > 2), born date, note text DEFAULT 'x', CONSTRAINT one_email UNIQUE (tenant_id, email) WITH (fillfactor = 80));
COMMENT ON CONSTRAINT one_email ON members IS 'one a tenant';
CREATE INDEX by_email ON members USING hash (email);
CREATE UNIQUE INDEX by_born ON members (born, tenant_id) INCLUDE (note) WHERE id > 100;
ALTER TABLE members CLUSTER ON one_email;
INSERT INTO members SELECT i, 't' || 1 + i % 2, 'user' || i || '@x', CASE WHEN i % 3 > 0 THEN '123-' || i END, date '2000-01-01' + i FROM generate_series(1, 1000) i;
ANALYZE members;
CREATE TABLE twin AS SELECT * FROM members;
CREATE FUNCTION definition() RETURNS TABLE (name text, definition text) LANGUAGE sql AS $$
	SELECT conname, concat_ws(' ', pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')) FROM pg_constraint WHERE conrelid = 'members'::regclass
	UNION ALL SELECT indexrelid::regclass::text, concat_ws(' ', pg_get_indexdef(indexrelid), indisclustered, indisvalid) FROM pg_index WHERE indrelid = 'members'::regclass
	UNION ALL SELECT attname, concat_ws(' ', format_type(atttypid, atttypmod), attnotnull) FROM pg_attribute WHERE attrelid = 'members'::regclass AND NOT attisdropped AND attnum > 0
	UNION ALL SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'members'::regclass AND tgname <> 'stop' $$;
CREATE TABLE members_before AS SELECT * FROM definition();

-- Not in a transaction, and not where something is in the way: it is refused
-- before anything is written.
BEGIN;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}');
ROLLBACK;
SELECT message('CALL envelope_protect_live(''members'', ''tenant_id'', ''{email}'')');
\set SHOW_CONTEXT never
CALL envelope_protect_live('members', 'tenant_id', '{email,nope}', '{email}');
CALL envelope_protect_live('members', 'tenant_id', '{email}', '{email}', 0);
CALL envelope_protect_live('members', 'tenant_id', NULL);
DROP INDEX by_email;
CREATE INDEX by_ssn ON members (ssn);
CALL envelope_protect_live('members', 'tenant_id', '{ssn}');
DROP INDEX by_ssn;
CREATE UNIQUE INDEX everywhere ON members (email);
CALL envelope_protect_live('members', 'tenant_id', '{email}', '{email}');
DROP INDEX everywhere;
CREATE INDEX by_email ON members USING hash (email);
ALTER TABLE members ADD CONSTRAINT late UNIQUE (tenant_id, ssn) DEFERRABLE;
CALL envelope_protect_live('members', 'tenant_id', '{ssn}');
ALTER TABLE members DROP CONSTRAINT late;
CREATE FUNCTION upsert() RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO members (id, tenant_id, email) VALUES (1, 't1', 'x') ON CONFLICT ON CONSTRAINT one_email DO NOTHING; END;
CALL envelope_protect_live('members', 'tenant_id', '{email}', '{email}');
DROP FUNCTION upsert;
ALTER TABLE members ADD CONSTRAINT later CHECK (born > '2000-01-02') NOT VALID;
CALL envelope_protect_live('members', 'tenant_id', '{email}', '{email}');
ALTER TABLE members DROP CONSTRAINT later;
CREATE TABLE one_email__term ();
CALL envelope_protect_live('members', 'tenant_id', '{email}', '{email}');
DROP TABLE one_email__term;
SET client_min_messages = error;
CREATE PUBLICATION of_members FOR TABLE members;
RESET client_min_messages;
ALTER TABLE members REPLICA IDENTITY NOTHING;
CALL envelope_protect_live('members', 'tenant_id', '{ssn}');
ALTER TABLE members REPLICA IDENTITY DEFAULT;
DROP PUBLICATION of_members;
CREATE TABLE keyed (tenant_id text, email text, PRIMARY KEY (tenant_id, email));
CALL envelope_protect_live('keyed', 'tenant_id', '{email}');
DROP TABLE keyed;
CREATE TABLE parted (tenant_id text, email text, note text) PARTITION BY LIST (tenant_id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('t1');
CREATE INDEX of_one ON parted_1 (email);
CALL envelope_protect_live('parted', 'tenant_id', '{email}', '{email}');
DROP INDEX of_one;
CREATE TABLE parted_1_email__term_idx ();
CALL envelope_protect_live('parted', 'tenant_id', '{email}', '{email}');
DROP TABLE parted_1_email__term_idx;
CREATE UNIQUE INDEX ON parted (tenant_id, email);
CALL envelope_protect_live('parted', 'tenant_id', '{email,note}');
DROP INDEX parted_tenant_id_email_idx;
ALTER TABLE parted_1 ADD CONSTRAINT of_one UNIQUE (tenant_id, email);
CREATE UNIQUE INDEX ON parted (tenant_id, email);
SELECT message($$SELECT envelope_protect('parted', 'tenant_id', '{email}')$$);
CREATE TABLE parted_2 PARTITION OF parted (note NOT NULL) FOR VALUES IN ('t2');
CALL envelope_protect_live('parted', 'tenant_id', '{note}');
CREATE TEMPORARY TABLE fleeting (tenant_id text, email text, note text);
INSERT INTO fleeting VALUES ('t1', 'x', 'y');
CALL envelope_protect_live('fleeting', 'tenant_id', '{email,note}', '{email}');
CREATE UNIQUE INDEX ON fleeting (tenant_id, email);
CALL envelope_protect_live('fleeting', 'tenant_id', '{email}');
CALL envelope_protect_live('fleeting', 'tenant_id', '{note}');
SELECT * FROM fleeting;
DROP TABLE fleeting;
INSERT INTO members VALUES (1001, 'nobody', 'x');
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}', '{email}');
DELETE FROM members WHERE id = 1001;
SELECT relation, phase, running FROM envelope.protect_progress;
SELECT count(*) AS protected FROM envelope.protected_columns WHERE relation = 'members'::regclass;
SELECT * FROM definition() EXCEPT SELECT * FROM members_before;

-- What follows is looked at three times: in the clear, half sealed, and sealed.
CREATE FUNCTION stored_rows() RETURNS text LANGUAGE plpgsql SET envelope.stored_form = on AS $$
BEGIN
	RETURN (SELECT format('%s of %s in plain, %s with terms, %s sealed', count(email), count(*), count(email__term), count(email__sealed)) FROM members);
END $$;
CREATE FUNCTION roughly(stored text) RETURNS text LANGUAGE sql RETURN regexp_replace(stored, '\m([1-9][0-9]{0,2})\M', 'some', 'g');
CREATE FUNCTION plan(statement text) RETURNS SETOF text LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
		RETURN NEXT regexp_replace(line, '\\x[0-9a-f]+', 'T');
	END LOOP;
END $$;
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE statement INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS result = CONSTRAINT_NAME;
	RETURN rtrim(SQLSTATE || ' ' || result);
END $$;
CREATE TABLE statements (n int GENERATED ALWAYS AS IDENTITY, statement text);
INSERT INTO statements (statement) VALUES
	($$SELECT count(*) FROM (SELECT id, email, ssn, born FROM twin INTERSECT SELECT id, email, ssn, born FROM members) s$$),
	($$SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user777@x'$$),
	($$SELECT id FROM members WHERE (tenant_id, email) IN (('t2', 'user777@x'), ('t1', 'user777@x'))$$),
	($$SELECT count(*) FROM members WHERE ssn IS NULL$$),
	($$SELECT (m).email FROM (SELECT m FROM members m WHERE id = 4 AND m.* IS NOT NULL) s$$),
	($$UPDATE members SET note = note || 'y' WHERE id IN (1, 1000) RETURNING email$$),
	($$UPDATE members SET ssn = NULL WHERE id = 998 RETURNING id$$),
	($$UPDATE members SET tenant_id = 't2' WHERE id = 16 RETURNING email$$),
	($$SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user16@x'$$),
	($$INSERT INTO members VALUES (2000, 't1', 'new@x', '999', '1920-01-01') RETURNING email$$),
	($$SELECT concat_ws(' ', id, email, ssn, born, note) FROM members WHERE tenant_id = 't1' AND email = 'new@x'$$),
	($$INSERT INTO members AS m VALUES (2001, 't2', 'user777@x', '999') ON CONFLICT (tenant_id, email) DO UPDATE SET note = EXCLUDED.email || m.note RETURNING id || note$$),
	($$INSERT INTO members AS m VALUES (2001, 't1', 'new@x') ON CONFLICT ON CONSTRAINT one_email DO UPDATE SET email = 'newer@x' RETURNING id || email$$),
	($$INSERT INTO members VALUES (2001, 't1', 'newer@x') ON CONFLICT DO NOTHING RETURNING id$$),
	($$INSERT INTO members VALUES (2001, 't1', 'newer@x')$$),
	($$INSERT INTO members VALUES (2001, 't1', 'born@x', NULL, '1920-01-01')$$),
	($$INSERT INTO members VALUES (2001, 't1', NULL)$$),
	($$INSERT INTO members VALUES (2001, 't1', 'x', '1')$$),
	($$INSERT INTO members VALUES (2001, NULL, 'x')$$),
	($$UPDATE members SET email = NULL WHERE id = 900$$),
	($$DELETE FROM members WHERE tenant_id = 't1' AND email = 'newer@x' RETURNING id$$);

-- In the clear: a trigger of the application stops the call half-way, as a KMS
-- that is gone would.
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF old.id = 500 AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = tg_relid AND conname = tg_argv[0]) = tg_argv[1]::bool THEN
		RAISE EXCEPTION 'half way';
	END IF;
	RETURN new;
END $$;
CREATE TRIGGER stop BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION stop('email__plain', 'no');
ALTER TABLE members ENABLE ALWAYS TRIGGER stop;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn,born}', '{email}', 100);
SELECT column_name, searchable, indexed, live FROM envelope.protected_columns WHERE relation = 'members'::regclass ORDER BY 1;
SELECT relation, phase, rows_done > 0 AS done, rows_estimated, waits_for, pid, running FROM envelope.protect_progress;
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;
SELECT plan($$SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user777@x'$$);
BEGIN;
SELECT roughly(stored_rows());
SELECT n, try(statement) FROM statements ORDER BY n;
SELECT try($$INSERT INTO members (id, tenant_id, email__sealed) VALUES (2001, 't1', envelope_encrypt('t1', 'z', 'public.members.email'))$$);
SELECT message('ALTER TABLE members RENAME ssn TO number');
SELECT try('ALTER TABLE members ALTER email DROP NOT NULL');
SELECT message('CREATE INDEX ON members (email)');
SELECT message('ALTER TABLE members ADD EXCLUDE (tenant_id WITH =, email WITH =)');
SELECT message($$SELECT envelope_protect('members', 'tenant_id', '{note}')$$);
SELECT envelope_unprotect('members');
SELECT * FROM definition() EXCEPT SELECT * FROM members_before;
SELECT * FROM envelope.protect_progress;
ROLLBACK;

-- Half sealed
DROP TRIGGER stop ON members;
CREATE TRIGGER stop BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION stop('email__plain', 'yes');
ALTER TABLE members ENABLE ALWAYS TRIGGER stop;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn,born}', '{email}', 100);
SELECT relation, phase, rows_done > 0 AS done, running FROM envelope.protect_progress;
SELECT name, definition FROM definition() WHERE name ~ 'one_email|by_|_idx' ORDER BY 1, 2;
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;
SELECT plan($$SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user777@x'$$);
BEGIN;
SELECT roughly(stored_rows());
SELECT n, try(statement) FROM statements ORDER BY n;
SELECT message('ALTER TABLE members RENAME ssn TO number');
SELECT try('ALTER TABLE members ALTER email DROP NOT NULL');
ROLLBACK;

-- Back to the start
BEGIN;
SELECT envelope_unprotect('members');
SELECT * FROM definition() EXCEPT SELECT * FROM members_before;
SELECT count(*) AS same FROM (SELECT * FROM twin INTERSECT SELECT * FROM members) s;
SELECT * FROM envelope.protect_progress;
ROLLBACK;

-- On to the end
DROP TRIGGER stop ON members;
CALL envelope_protect_live('members', 'tenant_id', '{email,note}');
-- A trigger that does nothing where nothing changes would keep it going for ever.
CREATE TRIGGER suppress BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE members ENABLE ALWAYS TRIGGER suppress;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn,born}', '{email}', 100);
DROP TRIGGER suppress ON members;
SET client_min_messages = warning;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}', '{email}', 100);
RESET client_min_messages;
BEGIN;
SELECT roughly(stored_rows());
SELECT n, try(statement) FROM statements ORDER BY n;
ROLLBACK;
SELECT * FROM envelope.protect_progress;
SELECT regexp_replace(definition, '''[0-9.]+''', 'N', 'g') FROM definition() WHERE name LIKE 'zzz%';
SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint WHERE conrelid = 'members'::regclass AND contype = 'c' ORDER BY conname COLLATE "C";
SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'members'::regclass AND attname ~ 'email' ORDER BY attnum;
SELECT attname FROM pg_stats WHERE tablename = 'members' ORDER BY 1;
-- Dead rows are left to do, and doctor says so.
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;
VACUUM FULL members;
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;
VACUUM FULL pg_statistic;
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;

-- A further column, live too: those that are sealed stay so meanwhile.
DROP INDEX by_born;
CREATE TRIGGER stop BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION stop('note__plain', 'no');
ALTER TABLE members ENABLE ALWAYS TRIGGER stop;
CALL envelope_protect_live('members', 'tenant_id', '{note}', '{note}', 100);
SELECT roughly(stored_rows());
SELECT plan($$SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user777@x'$$);
SELECT count(*) AS same FROM (SELECT * FROM twin INTERSECT SELECT id, tenant_id, email, ssn, born, note FROM members) s;
BEGIN;
UPDATE members SET ssn = '1234', note = 'y' WHERE id = 1 RETURNING email, ssn, note;
SELECT try($$UPDATE members SET ssn = '1' WHERE id = 1$$), try($$UPDATE members SET email = NULL WHERE id = 1$$);
ROLLBACK;
BEGIN;
SELECT envelope_unprotect('members');
SELECT * FROM definition() EXCEPT SELECT * FROM members_before;
SELECT count(*) AS same FROM (SELECT * FROM twin INTERSECT SELECT * FROM members) s;
ROLLBACK;
DROP TRIGGER stop ON members;
SET client_min_messages = warning;
CALL envelope_protect_live('members', 'tenant_id', '{note}', '{note}', 100);
RESET client_min_messages;
SELECT column_name, searchable, indexed, live FROM envelope.protected_columns WHERE relation = 'members'::regclass ORDER BY 1;
SELECT envelope_unprotect('members');
SELECT * FROM definition() EXCEPT SELECT * FROM members_before;

-- A partitioned table without a searchable column, of an owner who is bound by
-- policies
DROP TABLE parted;
CREATE ROLE live_owner;
GRANT CREATE ON SCHEMA public TO live_owner;
SELECT envelope_grant('live_owner', 'admin');
SET ROLE live_owner;
CREATE TABLE parted (id int, tenant_id text, note text NOT NULL) PARTITION BY LIST (tenant_id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('t1');
CREATE TABLE parted_2 (note text NOT NULL, gone int, tenant_id text, id int);
ALTER TABLE parted_2 DROP COLUMN gone;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN ('t2');
ALTER TABLE parted_2 ALTER note SET NOT NULL;
INSERT INTO parted SELECT i, 't' || 1 + i % 2, 'note ' || i FROM generate_series(1, 300) i;
ALTER TABLE parted ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE parted_1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT count(*) AS seen FROM parted;
CALL envelope_protect_live('parted', 'tenant_id', '{note}');
RESET ROLE;
SELECT count(*) AS same FROM parted WHERE note = 'note ' || id;
SET envelope.stored_form = on;
SELECT count(note) AS plain, count(note__sealed) AS sealed FROM parted;
RESET envelope.stored_form;
SELECT subject, finding FROM envelope_doctor() WHERE subject LIKE '%parted%';

-- A partitioned one with searchable columns, two of which have an index.  A trigger
-- of one partition ends it half-way; the rest is done then.
DROP TABLE parted;
CREATE TABLE parted (id int, tenant_id text, email text, note text, tag text) PARTITION BY LIST (tenant_id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('t1');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN ('t2') PARTITION BY HASH (id);
CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_2b (tag text, note text, gone int, tenant_id text, id int, email text);
ALTER TABLE parted_2b DROP COLUMN gone;
ALTER TABLE parted_2 ATTACH PARTITION parted_2b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX emails ON parted USING hash (email);
CREATE INDEX by_note ON parted (tenant_id, note) WITH (fillfactor = 70);
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
CREATE INDEX ON parted_2 (note) WITH (fillfactor = 60) WHERE id > 0;
CREATE INDEX some_notes ON parted (note) TABLESPACE elsewhere WHERE id > 0;
ALTER INDEX parted_2b_tenant_id_note_idx RENAME TO "Notes of b";
COMMENT ON INDEX by_note IS 'notes';
-- What a part has for itself, and parts that have each other's names
COMMENT ON INDEX "Notes of b" IS 'notes of b';
ALTER INDEX parted_2a_tenant_id_note_idx SET (fillfactor = 33);
ALTER INDEX "Notes of b" RESET (fillfactor);
ALTER INDEX parted_2a_note_idx SET TABLESPACE elsewhere;
ALTER TABLE parted_1 CLUSTER ON parted_1_tenant_id_note_idx;
ALTER INDEX parted_1_email_idx RENAME TO between;
ALTER INDEX parted_2_email_idx RENAME TO parted_1_email_idx;
ALTER INDEX parted_2a_email_idx RENAME TO parted_2_email__term_idx;
ALTER INDEX between RENAME TO parted_2a_email_idx;
INSERT INTO parted SELECT i, 't' || 1 + i % 2, 'user' || i, 'note ' || i % 20, 'tag ' || i % 30 FROM generate_series(1, 600) i;
ANALYZE parted;
CREATE FUNCTION indexes() RETURNS TABLE (part text, of text, index text) LANGUAGE sql AS $$
	SELECT i.indexrelid::regclass::text, h.inhparent::regclass::text, concat_ws(' ', i.indisvalid, i.indisclustered, (SELECT spcname FROM pg_tablespace s JOIN pg_class c ON s.oid = reltablespace WHERE c.oid = i.indexrelid), CASE relkind WHEN 'i' THEN pg_get_indexdef(i.indexrelid) ELSE regexp_replace(pg_get_indexdef(i.indexrelid), ' WITH \(.*?\)', '') END, obj_description(i.indexrelid))
	FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid WHERE i.indrelid IN (SELECT relid FROM pg_partition_tree('parted')) ORDER BY 1 $$;
CREATE TABLE indexes_before AS SELECT * FROM indexes();
CREATE TRIGGER stop BEFORE UPDATE ON parted_2b FOR EACH ROW EXECUTE FUNCTION stop('email__plain', 'yes');
ALTER TABLE parted_2b ENABLE ALWAYS TRIGGER stop;
UPDATE parted_2b SET id = 500 WHERE id = (SELECT max(id) FROM parted_2b);
SET client_min_messages = warning;
CALL envelope_protect_live('parted', 'tenant_id', '{email,note,tag}', '{email,note,tag}', 100);
SELECT subject, finding FROM envelope_doctor() WHERE subject LIKE '%parted%';
SELECT message($$CREATE TABLE parted_3 PARTITION OF parted (note NOT NULL) FOR VALUES IN ('t3')$$) AS not_null, message($$CREATE TABLE parted_3 PARTITION OF parted (CHECK (note <> '')) FOR VALUES IN ('t3')$$) AS checked;
-- Terms have the indexes that come with that alone.
SELECT message($$CREATE TABLE parted_3 PARTITION OF parted (UNIQUE (id, email__term)) FOR VALUES IN ('t3')$$) AS unique, try($$CREATE TABLE parted_3 PARTITION OF parted (PRIMARY KEY (id, email__term)) FOR VALUES IN ('t3')$$) AS key,
	try('CREATE INDEX mine ON parted_1 (email__term)') AS index, try('CREATE INDEX mine ON parted_2a (id) INCLUDE (tag__sealed)') AS included, try('ALTER TABLE parted_2a ADD UNIQUE (id, tag__term)') AS added, try('ALTER TABLE parted_1 ADD UNIQUE (id) INCLUDE (note__term)') AS beside;
SELECT regexp_replace(part, '_relid_\d+', '') AS part, of, index FROM indexes();
SELECT plan('SELECT id FROM parted WHERE tenant_id = ''t2'' AND email = ''user77''');
SELECT count(*) FROM parted WHERE tenant_id = 't2' AND email = 'user77';
BEGIN;
SELECT envelope_unprotect('parted');
SELECT * FROM indexes() EXCEPT SELECT * FROM indexes_before;
ROLLBACK;
DROP TRIGGER stop ON parted_2b;
CALL envelope_protect_live('parted', 'tenant_id', '{email,note,tag}', '{email,note,tag}', 100);
SELECT count(*) FROM parted WHERE tenant_id = 't2' AND email = 'user77';
SELECT count(*) FROM parted WHERE tenant_id = 't1' AND tag = 'tag 6';
SELECT plan('SELECT id FROM parted WHERE tenant_id = ''t1'' AND tag = ''tag 6''');
SET envelope.stored_form = on;
SELECT count(email) + count(note) + count(tag) AS plain, count(tag__sealed) AS sealed FROM parted;
RESET envelope.stored_form;
SELECT envelope_unprotect('parted');
SELECT * FROM indexes() EXCEPT SELECT * FROM indexes_before;
SELECT envelope_protect('parted', 'tenant_id', '{email,note,tag}', '{email,note,tag}');
SELECT envelope_unprotect('parted');
RESET client_min_messages;
SELECT * FROM indexes() EXCEPT SELECT * FROM indexes_before;
SELECT * FROM indexes_before EXCEPT SELECT * FROM indexes();
DROP FUNCTION indexes;
DROP TABLE parted, indexes_before, members, twin, members_before, statements;
DROP TABLESPACE elsewhere;
DROP FUNCTION stop, stored_rows, roughly, plan, try, definition;
SELECT envelope_revoke('live_owner', 'admin');
DROP OWNED BY live_owner;
DROP ROLE live_owner;
