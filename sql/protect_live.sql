-- A table is protected while it is in use: batch after batch, each in a transaction
-- of its own; it can be interrupted, gone on with and taken back at any time.

CREATE TABLE members (id integer PRIMARY KEY, tenant_id text, email text NOT NULL, ssn varchar(11) CONSTRAINT ssn_length CHECK (length(ssn) > 2), born date, note text DEFAULT 'x');
INSERT INTO members SELECT i, 't' || 1 + i % 2, 'user' || i || '@x', CASE WHEN i % 3 > 0 THEN '123-' || i END, date '2000-01-01' + i FROM generate_series(1, 1000) i;
ANALYZE members;
CREATE TABLE twin AS SELECT * FROM members;
CREATE TABLE members_before AS SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = 'members'::regclass;

-- Not in a transaction, not with an index that holds the values, not with rows that cannot be sealed
BEGIN;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}');
ROLLBACK;
SELECT message('CALL envelope_protect_live(''members'', ''tenant_id'', ''{email}'')');
CREATE INDEX members_email ON members (email);
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}', '{email}');
DROP INDEX members_email;
CALL envelope_protect_live('members', 'tenant_id', '{email,nope}');
CALL envelope_protect_live('members', 'tenant_id', '{email}', '{}', 0);
CALL envelope_protect_live('members', 'tenant_id', NULL);
INSERT INTO members VALUES (1001, 'nobody', 'x');
\set SHOW_CONTEXT never
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}', '{email}');
DELETE FROM members WHERE id = 1001;
SELECT count(*) AS protected FROM envelope.protected_columns WHERE relation = 'members'::regclass;

-- A KMS that is gone in the middle: a row of a tenant whose key is not to be had is left alone, and so is all after it
CREATE FUNCTION stop_half_way() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF old.id = 500 THEN RAISE EXCEPTION ''half way''; END IF; RETURN new; END';
CREATE TRIGGER stop_half_way BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION stop_half_way();
ALTER TABLE members ENABLE ALWAYS TRIGGER stop_half_way;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}', '{email}', 100);
SELECT DISTINCT live FROM envelope.protected_columns WHERE relation = 'members'::regclass;
CREATE FUNCTION sealed() RETURNS bigint LANGUAGE sql SET envelope.stored_form = on AS 'SELECT count(email__sealed) FROM members';
SELECT sealed() BETWEEN 100 AND 900 AS half_way;
-- Meanwhile it reads and writes as ever, both halves of it.
SELECT count(*) AS same FROM (SELECT id, email, ssn FROM twin INTERSECT SELECT id, email, ssn FROM members) s;
SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user777@x';
SELECT count(*) FROM members WHERE ssn IS NULL;
UPDATE members SET note = 'y' WHERE id IN (1, 1000);
UPDATE members SET ssn = NULL WHERE id IN (2, 998);
INSERT INTO members VALUES (2000, 't1', 'new@x', '999', '2020-01-01');
SELECT outcome($$INSERT INTO members VALUES (2001, 't1', NULL)$$) AS not_null, outcome($$UPDATE members SET email = NULL WHERE id = 900$$) AS update_null, outcome($$INSERT INTO members VALUES (2001, 't1', 'x', '1')$$) AS checked;
SELECT id, email, ssn, note FROM members WHERE id IN (1, 2, 998, 1000, 2000) ORDER BY id;
SELECT message('ALTER TABLE members RENAME ssn TO number');
SELECT message($$SELECT envelope_protect('members', 'tenant_id', '{born}')$$);
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members';

-- Back to the start
BEGIN;
SELECT envelope_unprotect('members');
SELECT count(*) FROM members;
SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = 'members'::regclass EXCEPT SELECT * FROM members_before;
\d members
ROLLBACK;

-- On to the end
DROP TRIGGER stop_half_way ON members;
SET client_min_messages = warning;
CALL envelope_protect_live('members', 'tenant_id', '{email,ssn}', '{email}', 100);
RESET client_min_messages;
SELECT sealed();
SELECT count(*) AS differ FROM (SELECT id, email, ssn FROM twin WHERE id NOT IN (2, 998) EXCEPT SELECT id, email, ssn FROM members) s;
SELECT regexp_replace(pg_get_triggerdef(oid), '''[0-9]+''', 'N') FROM pg_trigger WHERE tgrelid = 'members'::regclass;
SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint WHERE conrelid = 'members'::regclass AND contype = 'c' ORDER BY conname COLLATE "C";
SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'members'::regclass AND attname ~ 'email' ORDER BY attnum;
SELECT attname FROM pg_stats WHERE tablename = 'members' ORDER BY 1;
-- Dead rows and the index are left to do, and doctor says so.
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;
VACUUM FULL members;
CREATE INDEX CONCURRENTLY members_email ON members (tenant_id, email);
SELECT subject, finding, hint FROM envelope_doctor() WHERE subject LIKE '%members' ORDER BY 2;
SELECT id FROM members WHERE tenant_id = 't2' AND email = 'user777@x';
SELECT envelope_protect('members', 'tenant_id', '{born}');
SELECT envelope_unprotect('members');
SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = 'members'::regclass EXCEPT SELECT * FROM members_before;
DROP TABLE members, twin, members_before;
DROP FUNCTION stop_half_way, sealed;
