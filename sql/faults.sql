-- What a KMS in trouble does to those who need it.  The local KEK misbehaves by
-- order of envelope.local_kek_faults.

-- Reload, and return when the worker has: when a check ends as it is to.
CREATE FUNCTION reload_until(kek text, wanted text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_reload_conf();
	FOR i IN 1 .. 1000 LOOP
		EXIT WHEN (SELECT c.outcome FROM envelope_check_kek(kek) c) = wanted;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
SET envelope.kms_timeout = '300ms';

SELECT outcome('SET envelope.local_kek_faults = ''platform:denied''') AS not_in_a_session;
\set VERBOSITY terse
ALTER SYSTEM SET envelope.local_kek_faults = 'platform';
ALTER SYSTEM SET envelope.local_kek_faults = 'platform:on fire';
ALTER SYSTEM SET envelope.local_kek_faults = 'platform:delay=';
ALTER SYSTEM SET envelope.local_kek_faults = 'platform:delay=12x';
ALTER SYSTEM SET envelope.local_kek_faults = 'platform:delay=10;;';
\set VERBOSITY default

CREATE TEMP TABLE v AS SELECT envelope_encrypt('t1', 'x') AS v;

ALTER SYSTEM SET envelope.local_kek_faults = 'platform:denied';
SELECT reload_until('platform', 'denied');
SELECT envelope_evict_all() > 0 AS evicted;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);
SELECT outcome($$SELECT envelope_encrypt('t1', 'x')$$) AS seal, outcome($$SELECT envelope_create_tenant('f1')$$) AS create_tenant,
	outcome($$SELECT envelope_blind_index('t1', 'x')$$) AS term;
SELECT ok, outcome, detail FROM envelope_check_kek('platform');
SET envelope.unreadable = 'null';
SELECT envelope_decrypt('t1', v) FROM v;
RESET envelope.unreadable;
SELECT kek, outcome, since <= now() AS since, detail FROM envelope.status;
SELECT severity, subject, hint FROM envelope_doctor();

ALTER SYSTEM SET envelope.local_kek_faults = 'platform:unreachable';
SELECT reload_until('platform', 'unreachable');
SELECT envelope_evict_all() >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);
SET envelope.unreadable = 'null';
SELECT outcome($$SELECT envelope_decrypt('t1', v) FROM v$$) AS never_null;
RESET envelope.unreadable;
SELECT ok, outcome, detail FROM envelope_check_kek('platform');

ALTER SYSTEM SET envelope.local_kek_faults = 'platform:corrupt';
SELECT reload_until('platform', 'corrupt');
SELECT envelope_evict_all() >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);

ALTER SYSTEM SET envelope.local_kek_faults = 'platform:stalled';
SELECT reload_until('platform', 'unreachable');
SELECT envelope_evict_all() >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);

-- All is well again, without help.
ALTER SYSTEM RESET envelope.local_kek_faults;
RESET envelope.kms_timeout;
SELECT reload_until('platform', 'ok');
SELECT envelope_decrypt('t1', v) FROM v;
SELECT kek, outcome FROM envelope.status;
SELECT severity, subject FROM envelope_doctor();
SELECT operation, ok > 0 AS ok, denied > 0 AS denied, unreachable > 0 AS unreachable, corrupt > 0 AS corrupt, waits > 0 AS waits,
	calls = ok + denied + unreachable + corrupt + misconfigured AS sum, p50_ms IS NOT NULL AS p50, p99_ms >= p50_ms AS p99
FROM envelope.kms_stats WHERE kek = 'platform' ORDER BY operation;
-- Of two KEKs one stalls: the other does not care, in one statement or in two.
SELECT envelope_create_kek('eu', 'local://platform');
SELECT envelope_create_tenants(array['eu1', 'eu2'], 'eu');
CREATE TEMP TABLE both_keks AS SELECT t, envelope_encrypt(t, 'x') AS v FROM unnest(array['t1', 'eu1', 't2', 'eu2']) t;
SET envelope.kms_timeout = '300ms';
ALTER SYSTEM SET envelope.local_kek_faults = 'eu:stalled';
SELECT reload_until('eu', 'unreachable');
SELECT envelope_evict_all() >= 0;
SELECT t, outcome(format('SELECT envelope_decrypt(%L, %L::bytea)', t, v)) FROM both_keks;
SELECT outcome FROM envelope_check_kek('platform');
-- warming warns of each KEK once, and brings what can be had
SELECT envelope_evict_all() >= 0;
ALTER SYSTEM SET envelope.local_kek_faults = 'eu:denied;nobody:stalled';
SELECT reload_until('eu', 'denied');
SELECT envelope_warm(array['t1', 'eu1', 'eu2', 't2']) AS warmed;
SELECT DISTINCT tenant_id FROM envelope.cache WHERE database = current_database() ORDER BY 1;
-- all or none, when the KMS fails half way
SELECT outcome($$SELECT envelope_create_tenants(array['f1', 'f2', 'f3'], 'eu')$$);
-- a delay is waited for, and faults of one KEK add up
ALTER SYSTEM SET envelope.local_kek_faults = 'eu:delay=50';
SELECT reload_until('eu', 'ok');
SELECT ok, latency_ms >= 50 AS delayed FROM envelope_check_kek('eu');
SELECT outcome(format('SELECT envelope_decrypt(%L, %L::bytea)', t, v)) AS opened, count(*) FROM both_keks GROUP BY 1;
ALTER SYSTEM SET envelope.local_kek_faults = 'eu:delay=50;eu:denied';
SELECT reload_until('eu', 'denied');
SELECT outcome, latency_ms >= 50 AS delayed FROM envelope_check_kek('eu');
ALTER SYSTEM RESET envelope.local_kek_faults;
RESET envelope.kms_timeout;
SELECT reload_until('eu', 'ok');
SELECT kek, outcome FROM envelope.status ORDER BY kek;
SELECT severity, subject FROM envelope_doctor();

-- A call that nobody waits for any more, and that fails when the KEK is well
-- again, says nothing of the KEK.
CREATE FUNCTION running_checks() RETURNS bigint LANGUAGE sql AS
	$$SELECT waits - calls FROM envelope.kms_stats WHERE kek = 'eu' AND operation = 'check'$$;
CREATE FUNCTION wait_for_checks(wanted bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXIT WHEN running_checks() <= wanted;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN running_checks() <= wanted;
END
$$;
SELECT running_checks() AS running \gset
SET envelope.kms_timeout = '300ms';
ALTER SYSTEM SET envelope.local_kek_faults = 'eu:stalled';
SELECT reload_until('eu', 'unreachable');
ALTER SYSTEM RESET envelope.local_kek_faults;
SELECT reload_until('eu', 'ok');
RESET envelope.kms_timeout;
SELECT wait_for_checks(:running) AS ended;
SELECT outcome FROM envelope.status WHERE kek = 'eu';
DROP FUNCTION running_checks, wait_for_checks;

-- Nothing was made of what failed.
SELECT count(*) AS nothing_made FROM envelope.tenants WHERE tenant_id IN ('f1', 'f2', 'f3');
