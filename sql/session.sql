-- What a session can set: the tenant that it is bound to, and how it reads what
-- cannot be read.

-- A bound session works for its tenant only.
CREATE TEMP TABLE v AS SELECT envelope_encrypt('t1', 'one') AS one, envelope_encrypt('t2', 'two') AS two;
SET envelope.tenant = 't1';
SELECT envelope_decrypt('t1', one) FROM v;
SELECT message($$SELECT envelope_decrypt('t2', two) FROM v$$);
SELECT outcome($$SELECT envelope_encrypt('t2', 'x')$$) AS seal,
	outcome($$SELECT envelope_encrypt_deterministic('t2', 'x')$$) AS deterministic,
	outcome($$SELECT envelope_blind_index('t2', 'x')$$) AS term,
	outcome($$SELECT envelope_reencrypt('t2', two) FROM v$$) AS reencrypt,
	outcome($$SELECT envelope_encrypt('nobody', 'x')$$) AS unknown,
	outcome($$SELECT envelope_encrypt(42, 'x')$$) AS bigint;
SET envelope.tenant = '42';
SELECT envelope_decrypt(42, envelope_encrypt('42', 'bound by its text'));
-- also row after row, and in a function that sets it for itself
BEGIN;
SET LOCAL envelope.tenant = 't1';
SELECT envelope_decrypt('t1', one) FROM v;
SET LOCAL envelope.tenant = 't2';
SELECT outcome($$SELECT envelope_decrypt('t1', one) FROM v$$) AS bound_meanwhile;
COMMIT;
RESET envelope.tenant;
SELECT envelope_decrypt('t1', one), envelope_decrypt('t2', two) FROM v;
-- in a cursor, and in workers of a parallel query
BEGIN;
DECLARE bound CURSOR FOR SELECT envelope_decrypt('t1', one) FROM v, generate_series(1, 3);
FETCH 1 FROM bound;
SET LOCAL envelope.tenant = 't2';
FETCH 1 FROM bound;
ROLLBACK;
CREATE TABLE parallel_values AS SELECT envelope_encrypt('t1', 'value ' || g) AS v FROM generate_series(1, 2000) g;
ANALYZE parallel_values;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_leader_participation = off;
SET LOCAL envelope.tenant = 't1';
EXPLAIN (COSTS OFF) SELECT count(envelope_decrypt('t1', v)) FROM parallel_values;
SELECT count(envelope_decrypt('t1', v)) FROM parallel_values;
SET LOCAL envelope.tenant = 't2';
SELECT outcome($$SELECT count(envelope_decrypt('t1', v)) FROM parallel_values$$) AS bound;
ROLLBACK;
-- it binds values, not who looks after tenants; and DISCARD ALL ends it
SET envelope.tenant = 't1';
SELECT envelope_create_tenant('another') > 0 AS create_tenant, envelope_evict('another') >= 0 AS evict, envelope_warm(array['another']) > 0 AS warm;
SET envelope.tenant = 'no such tenant';
SELECT outcome($$SELECT envelope_encrypt('no such tenant', 'x')$$) AS bound_to_nobody, outcome($$SELECT envelope_encrypt('t1', 'x')$$) AS other;
DISCARD ALL;
SELECT envelope_encrypt('t1', 'x') IS NOT NULL AS unbound;
CREATE TEMP TABLE v AS SELECT envelope_encrypt('t1', 'one') AS one, envelope_encrypt('t2', 'two') AS two;
CREATE FUNCTION for_t2(bytea) RETURNS text LANGUAGE sql SET envelope.tenant = 't2' AS $$SELECT envelope_decrypt('t2', $1)$$;
SELECT for_t2(two), outcome($$SELECT for_t2(one) FROM v$$) AS other FROM v;

-- A suspended or destroyed tenant reads as NULL if the session says so, with
-- one warning a tenant and transaction; nothing else does.
SELECT envelope_create_tenants(array['n1', 'n2', 'n3']);
CREATE TEMP TABLE report AS
	SELECT 'n' || (1 + g % 3) AS tenant, g, envelope_encrypt('n' || (1 + g % 3), 'value ' || g, 'c') AS v
	FROM generate_series(1, 9) g;
SELECT envelope_suspend_tenant('n2');
SELECT message($$SELECT count(envelope_decrypt(tenant, v, 'c')) FROM report$$);
SET envelope.unreadable = 'null';
SELECT tenant, g, envelope_decrypt(tenant, v, 'c') FROM report ORDER BY g;
BEGIN;
SELECT count(envelope_decrypt(tenant, v, 'c')) FROM report;
SELECT count(envelope_decrypt(tenant, v, 'c')) AS warned_before FROM report;
COMMIT;
SELECT message($$SELECT envelope_decrypt_bytea('n2', v, 'c') IS NULL FROM report WHERE tenant = 'n2'$$) AS bytea;
SELECT outcome($$SELECT envelope_encrypt('n2', 'x')$$) AS seal,
	outcome($$SELECT envelope_reencrypt('n2', v, 'c') FROM report WHERE tenant = 'n2'$$) AS reencrypt,
	outcome($$SELECT envelope_blind_index_of('n2', v, 'c') FROM report WHERE tenant = 'n2'$$) AS term_of,
	outcome($$SELECT envelope_blind_index('n2', 'x')$$) AS term,
	outcome($$SELECT envelope_decrypt('n1', v, 'other') FROM report WHERE tenant = 'n1'$$) AS corrupt,
	outcome($$SELECT envelope_decrypt('n3', v, 'c') FROM report WHERE tenant = 'n1'$$) AS other_tenant,
	outcome($$SELECT envelope_decrypt('nobody', v, 'c') FROM report$$) AS unknown,
	outcome($$SELECT envelope_decrypt('n1', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'))$$) AS unknown_key;
UPDATE envelope.tenants SET state = 'scheduled' WHERE tenant_id = 'n3';
UPDATE envelope.tenants SET state = 'destroyed' WHERE tenant_id = 'n3';
SELECT count(envelope_decrypt(tenant, v, 'c')) AS of_one_tenant FROM report;
-- in a parallel query, in which each process warns
SELECT envelope_suspend_tenant('t1');
BEGIN;
SET LOCAL client_min_messages = error;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT count(envelope_decrypt('t1', v)) AS opened, count(*) FROM parallel_values;
ROLLBACK;
SELECT envelope_resume_tenant('t1');
-- NULL beside the switch back to errors, in one transaction
BEGIN;
SELECT envelope_decrypt('n2', v, 'c') FROM report WHERE tenant = 'n2' AND g = 1;
SET LOCAL envelope.unreadable = 'error';
SELECT outcome($$SELECT envelope_decrypt('n2', v, 'c') FROM report WHERE tenant = 'n2' AND g = 1$$) AS error_again;
COMMIT;
RESET envelope.unreadable;
DROP TABLE parallel_values;
SELECT message($$SELECT count(envelope_decrypt(tenant, v, 'c')) FROM report WHERE tenant = 'n3'$$);
SELECT envelope_resume_tenant('n2');
SELECT outcome('SET envelope.unreadable = ''maybe''') AS no_such_mode,
	outcome('SET envelope.cache_ttl = 10') AS not_in_a_session,
	outcome('SET envelope.nonsense = 1') AS no_such_setting;
