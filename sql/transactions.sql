-- Keys come and go with the transaction that makes or changes them.

-- Made in a transaction: usable there, gone when it is rolled back.
BEGIN;
SELECT envelope_create_tenant('x1') > 0;
SELECT envelope_decrypt('x1', envelope_encrypt('x1', 'inside'));
ROLLBACK;
SELECT outcome($$SELECT envelope_encrypt('x1', 'x')$$) AS rolled_back;
BEGIN;
SELECT outcome($$SELECT envelope_encrypt('x1', 'x')$$) AS before;
SELECT envelope_create_tenant('x1') > 0;
SELECT envelope_decrypt('x1', envelope_encrypt('x1', 'after'));
COMMIT;
SELECT envelope_decrypt('x1', envelope_encrypt('x1', 'committed'));

-- In the same command
SELECT envelope_decrypt('x2', envelope_encrypt('x2', 'same command'))
FROM (SELECT envelope_create_tenant('x2') AS key OFFSET 0) s WHERE key > 0;

-- In subtransactions, rolled back and released
BEGIN;
SAVEPOINT s;
SELECT envelope_create_tenant('x3') > 0;
CREATE TEMP TABLE x3 ON COMMIT DROP AS SELECT envelope_encrypt('x3', 'gone') AS v;
SELECT envelope_decrypt('x3', v) FROM x3;
ROLLBACK TO s;
SELECT outcome($$SELECT envelope_encrypt('x3', 'x')$$) AS rolled_back;
SELECT envelope_create_tenant('x3') > 0;
SELECT envelope_decrypt('x3', envelope_encrypt('x3', 'made again'));
SAVEPOINT s;
SELECT envelope_create_tenant('x4') > 0;
RELEASE s;
SELECT envelope_decrypt('x4', envelope_encrypt('x4', 'released'));
COMMIT;
SELECT envelope_decrypt('x4', envelope_encrypt('x4', 'committed'));
DO $$
BEGIN
	PERFORM envelope_create_tenant('x5');
	PERFORM envelope_encrypt('x5', 'x');
	RAISE EXCEPTION 'never mind';
EXCEPTION WHEN raise_exception THEN
	NULL;
END
$$;
SELECT outcome($$SELECT envelope_encrypt('x5', 'x')$$) AS rolled_back;

-- A suspension that is rolled back has not happened, and evicts nothing.
SELECT envelope_warm(array['x1']) >= 0;
BEGIN;
SAVEPOINT s;
SELECT envelope_suspend_tenant('x1');
SELECT outcome($$SELECT envelope_encrypt('x1', 'x')$$) AS suspended;
ROLLBACK TO s;
SELECT envelope_encrypt('x1', 'x') IS NOT NULL AS not_suspended;
COMMIT;
BEGIN;
SELECT envelope_suspend_tenant('x1');
ROLLBACK;
SELECT count(*) AS in_memory FROM envelope.cache WHERE tenant_id = 'x1';
BEGIN;
SAVEPOINT s;
SELECT envelope_suspend_tenant('x1');
RELEASE s;
COMMIT;
SELECT count(*) AS in_memory FROM envelope.cache WHERE tenant_id = 'x1';
SELECT envelope_resume_tenant('x1');

-- Two-phase commit
BEGIN;
SELECT envelope_create_tenant('p1') > 0;
SELECT envelope_encrypt('p1', 'x') IS NOT NULL;
PREPARE TRANSACTION 'p1';
SELECT outcome($$SELECT envelope_encrypt('p1', 'x')$$) AS prepared;
COMMIT PREPARED 'p1';
SELECT envelope_decrypt('p1', envelope_encrypt('p1', 'commit prepared'));
BEGIN;
SELECT envelope_create_tenant('p2') > 0;
PREPARE TRANSACTION 'p2';
ROLLBACK PREPARED 'p2';
SELECT outcome($$SELECT envelope_encrypt('p2', 'x')$$) AS rollback_prepared;
BEGIN;
SELECT envelope_suspend_tenant('p1');
PREPARE TRANSACTION 'p3';
ROLLBACK PREPARED 'p3';
SELECT envelope_encrypt('p1', 'x') IS NOT NULL AS not_suspended;
BEGIN;
SAVEPOINT s;
SELECT envelope_suspend_tenant('p1');
ROLLBACK TO s;
PREPARE TRANSACTION 'p4';
COMMIT PREPARED 'p4';

BEGIN;
UPDATE envelope.tenant_keys SET state = 'retired' WHERE tenant_id = 'p1' AND purpose = 'data';
UPDATE envelope.tenant_keys SET state = 'scheduled' WHERE tenant_id = 'p1' AND purpose = 'data';
UPDATE envelope.tenant_keys SET state = 'destroyed', wrapped_dek = NULL WHERE tenant_id = 'p1' AND purpose = 'data';
PREPARE TRANSACTION 'p5';
ROLLBACK PREPARED 'p5';
SELECT envelope_encrypt('p1', 'x') IS NOT NULL AS not_destroyed;
-- a resumption leaves nothing in memory to be wiped
SELECT envelope_suspend_tenant('p1');
BEGIN;
SELECT envelope_resume_tenant('p1');
PREPARE TRANSACTION 'p6';
SELECT outcome($$SELECT envelope_encrypt('p1', 'x')$$) AS prepared;
COMMIT PREPARED 'p6';
SELECT envelope_encrypt('p1', 'x') IS NOT NULL AS resumed;

-- Suspended deep down and released, then rolled back above: nothing happened.
SELECT envelope_warm(array['x1']) >= 0;
BEGIN;
SAVEPOINT outer_one;
SAVEPOINT inner_one;
SELECT envelope_suspend_tenant('x1');
RELEASE inner_one;
SELECT outcome($$SELECT envelope_encrypt('x1', 'x')$$) AS suspended;
ROLLBACK TO outer_one;
SELECT envelope_encrypt('x1', 'x') IS NOT NULL AS not_suspended;
COMMIT;
SELECT count(*) AS in_memory FROM envelope.cache WHERE tenant_id = 'x1';

-- A procedure that commits on the way, with a loop over a query that opens
CREATE TABLE steps AS SELECT g, envelope_encrypt('x1', 'step ' || g) AS v FROM generate_series(1, 4) g;
DO $$
DECLARE
	step record;
BEGIN
	FOR step IN SELECT g, envelope_decrypt('x1', v) AS opened FROM steps ORDER BY g LOOP
		UPDATE steps SET v = envelope_encrypt('x1', step.opened || ' done') WHERE g = step.g;
		IF step.g = 3 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		PERFORM envelope_create_tenant('step' || step.g);
	END LOOP;
END
$$;
SELECT envelope_decrypt('x1', v) FROM steps ORDER BY g;
SELECT tenant_id, envelope_decrypt(tenant_id, envelope_encrypt(tenant_id, 'x')) AS opened FROM envelope.tenants WHERE tenant_id LIKE 'step%' ORDER BY 1;
DROP TABLE steps;
BEGIN;
SELECT envelope_create_tenant('chained') > 0;
ROLLBACK AND CHAIN;
SELECT outcome($$SELECT envelope_encrypt('chained', 'x')$$) AS rolled_back;
SELECT envelope_create_tenant('chained') > 0;
COMMIT AND CHAIN;
SELECT envelope_decrypt('chained', envelope_encrypt('chained', 'committed'));
COMMIT;

-- A cursor holds on over commit, and reads the keys as they are then.
CREATE TABLE cursors AS SELECT g, envelope_encrypt('x1', 'row ' || g) AS v FROM generate_series(1, 5) g;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT envelope_decrypt('x1', v) FROM cursors ORDER BY g;
FETCH 2 FROM held;
COMMIT;
FETCH 2 FROM held;
CLOSE held;
BEGIN;
DECLARE open_cursor CURSOR FOR SELECT envelope_decrypt('x1', v) FROM cursors ORDER BY g;
FETCH 1 FROM open_cursor;
SELECT envelope_suspend_tenant('x1');
FETCH 1 FROM open_cursor;
ROLLBACK;
DROP TABLE cursors;

-- Refused where readers of keys would conflict with it
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT outcome($$SELECT envelope_suspend_tenant('x1')$$) AS suspend, outcome($$SELECT envelope_create_kek('s', 'local://s')$$) AS create_kek,
	envelope_decrypt('x1', envelope_encrypt('x1', 'reads and writes'));
COMMIT;
BEGIN READ ONLY;
SELECT envelope_decrypt('x1', envelope_encrypt('x1', 'read only'));
SELECT outcome($$SELECT envelope_create_tenant('x6')$$) AS create_tenant;
COMMIT;
