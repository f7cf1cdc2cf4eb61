-- The columns that hold sealed values belong to no application: where a client
-- says "*" they are not there, and it is told so where it names them.

SET search_path = twins, public;
CREATE TABLE cards (id integer, tenant_id text, number text, note text);
CREATE TABLE others (id integer, word text);
SELECT envelope_protect('cards', 'tenant_id', '{number}');
INSERT INTO cards VALUES (1, 't1', '4111', 'a'), (2, 't1', NULL, 'b'), (3, 't2', '5500', 'c');
INSERT INTO others VALUES (3, 'three'), (1, 'one');

SELECT * FROM cards ORDER BY 3, 1;
TABLE cards;
SELECT c.*, 1 AS one FROM cards c ORDER BY id DESC;
SELECT (c).* FROM cards c ORDER BY id DESC;
SELECT (q).*, 1 AS one FROM (SELECT c AS q FROM cards c ORDER BY id) s;
SELECT (q).id, (q).number, (q).number__sealed FROM (SELECT c AS q FROM cards c ORDER BY id) s;
SELECT * FROM cards JOIN others USING (id) ORDER BY word;
SELECT * FROM cards a NATURAL JOIN cards b ORDER BY id;
SELECT * FROM others LEFT JOIN cards c ON c.id = others.id ORDER BY others.id;
SELECT * FROM (SELECT * FROM cards) q WHERE id = 1;
SELECT * FROM (cards c JOIN others USING (id)) AS j ORDER BY id;
WITH c AS (SELECT * FROM cards) SELECT * FROM c ORDER BY id;
SELECT DISTINCT * FROM cards ORDER BY id;
SELECT * FROM cards UNION ALL SELECT * FROM cards ORDER BY id, note LIMIT 3;
SELECT * FROM cards WHERE id < 3 EXCEPT SELECT * FROM cards WHERE number IS NULL;
SELECT *, count(*) OVER () FROM cards ORDER BY id;
SELECT * FROM cards WHERE id = 1
\gdesc
COPY (SELECT * FROM cards ORDER BY id) TO STDOUT;
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM cards;

-- What writing returns
INSERT INTO cards VALUES (4, 't2', '6011') RETURNING *;
UPDATE cards SET note = 'd' WHERE id = 4 RETURNING *;
WITH u AS (UPDATE cards SET number = number || '0' WHERE id = 4 RETURNING *) SELECT * FROM u;
DELETE FROM cards c USING others o WHERE c.id = o.id + 3 RETURNING *;

-- Prepared statements keep their columns when they are analyzed anew.
PREPARE one AS SELECT * FROM cards WHERE id = 1;
EXECUTE one;
ANALYZE cards;
DISCARD PLANS;
EXECUTE one;
EXPLAIN (VERBOSE, COSTS OFF) EXECUTE one;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM cards ORDER BY id;
FETCH 1 FROM c;
COMMIT;

-- Functions and views
CREATE FUNCTION all_cards() RETURNS SETOF cards LANGUAGE sql STABLE AS 'SELECT * FROM cards';
CREATE FUNCTION all_cards_atomic() RETURNS SETOF cards LANGUAGE sql STABLE BEGIN ATOMIC SELECT * FROM cards; END;
CREATE FUNCTION number_of(wanted integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r cards;
	s cards%ROWTYPE;
BEGIN
	SELECT * INTO r FROM cards WHERE id = wanted;
	EXECUTE 'SELECT * FROM cards WHERE id = $1' INTO s USING wanted;
	RETURN r.number || ' ' || s.number;
END
$$;
SELECT * FROM all_cards() ORDER BY id;
SELECT * FROM all_cards_atomic() ORDER BY id;
SELECT number_of(1);
CREATE VIEW card_view AS SELECT * FROM cards;
\d card_view
SELECT * FROM card_view ORDER BY id;

-- A position in a list that "*" has made longer
SELECT * FROM cards, others ORDER BY 2, 1, word;
\set VERBOSITY terse
SELECT * FROM cards, others ORDER BY 5;
SELECT * FROM cards ORDER BY 5;
-- Names
SELECT number__sealed FROM cards;
SELECT id FROM cards WHERE number__sealed IS NULL;
UPDATE cards SET note = 'x' RETURNING number__sealed;
SELECT q.number__sealed FROM (SELECT * FROM cards) q;
\set VERBOSITY default
SELECT id, number__sealed FROM cards;

-- In a function they read null.
CREATE FUNCTION stored_number(wanted integer) RETURNS bytea LANGUAGE sql AS 'SELECT number__sealed FROM cards WHERE id = wanted';
SELECT stored_number(1);

-- Assigned alone, null changes nothing.
UPDATE cards SET number__sealed = NULL WHERE id = 1;
UPDATE cards SET number = '42', number__sealed = NULL WHERE id = 2;
SELECT * FROM cards ORDER BY id;
SET envelope.stored_form = on;
SELECT id, tenant_id, number, note, envelope_is_sealed(number__sealed) FROM cards ORDER BY id;
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM cards;
RESET envelope.stored_form;

-- Privileges on the columns that there were are enough, as they were.
CREATE ROLE regress_teller;
GRANT USAGE ON SCHEMA twins TO regress_teller;
GRANT SELECT (id, tenant_id, number, note), UPDATE (number, note) ON cards TO regress_teller;
SET ROLE regress_teller;
SELECT message('SELECT number FROM cards');
SELECT note FROM cards WHERE number IS NOT NULL ORDER BY id;
RESET ROLE;
SELECT envelope_grant('regress_teller', 'use');
SET ROLE regress_teller;
SELECT * FROM cards ORDER BY id;
UPDATE cards SET number = '43' WHERE id = 2 RETURNING *;
SELECT message($$UPDATE cards SET tenant_id = 't2' WHERE id = 2$$);
RESET ROLE;
REVOKE SELECT ON cards FROM regress_teller;
GRANT SELECT (id, tenant_id) ON cards TO regress_teller;
SET ROLE regress_teller;
SELECT message('SELECT number FROM cards');
SELECT message('SELECT number__sealed FROM cards');
RESET ROLE;

-- INSERT without a column list counts all columns.
CREATE TABLE bills (id integer, tenant_id text, iban text, note text, amount integer GENERATED ALWAYS AS (1) STORED);
SELECT envelope_protect('bills', 'tenant_id', '{iban,note}');
INSERT INTO bills VALUES (1, 't1', 'DE1'), (2, 't1', 'DE2');
INSERT INTO bills VALUES (3, 't1', 'DE3', 'x', DEFAULT, NULL);
ALTER TABLE bills ADD COLUMN paid boolean DEFAULT true;
INSERT INTO bills VALUES (3, 't1', 'DE3');
INSERT INTO bills DEFAULT VALUES;
INSERT INTO bills VALUES (4, 't1', 'DE4', NULL, DEFAULT, NULL);
EXPLAIN (COSTS OFF) INSERT INTO bills SELECT 4, 't1', 'DE4', 'x', 1, NULL;
PREPARE bill AS WITH b AS (INSERT INTO bills VALUES (4, 't1', 'DE4', 'x', DEFAULT, 'true') RETURNING id) SELECT * FROM b;
MERGE INTO bills b USING others o ON b.id = o.id + 10 WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT VALUES (o.id + 10, 't1', 'DE5', 'x', DEFAULT, NULL);
CREATE FUNCTION add_bill() RETURNS void LANGUAGE sql AS $$ INSERT INTO bills VALUES (5, 't1', 'DE5', 'x', DEFAULT, NULL) $$;
DO $$ BEGIN INSERT INTO bills VALUES (5, 't1', 'DE5', 'x', DEFAULT, NULL); END $$;
-- What names them, or gives all as a dump does, goes on.
INSERT INTO bills (id, tenant_id, iban, iban__sealed, paid) VALUES (6, 't1', 'DE6', NULL, false);
INSERT INTO bills (id, tenant_id, iban, note, iban__sealed) VALUES (7, 't1', 'DE7', 'x', NULL);
INSERT INTO bills VALUES (8, 't1', NULL, NULL, DEFAULT, envelope_encrypt('t1', 'DE8', 'twins.bills.iban'), NULL, false);
SELECT * FROM bills ORDER BY id;
-- Protected anew, they are last again.
SELECT envelope_unprotect('bills');
SELECT envelope_protect('bills', 'tenant_id', '{iban,note}');
INSERT INTO bills VALUES (9, 't1', 'DE9', 'x', DEFAULT, false);
SELECT * FROM bills WHERE iban = 'DE9';
DROP TABLE bills;
