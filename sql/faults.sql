-- What a KMS in trouble does to those who need it.  The local KEK misbehaves by
-- order of envelope.local_kek_faults.

CREATE FUNCTION set_faults(faults text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_reload_conf();
	-- The worker has read its configuration when a check says what was ordered.
	FOR i IN 1 .. 1000 LOOP
		EXIT WHEN (SELECT c.outcome FROM envelope_check_kek('platform') c) =
			CASE WHEN faults LIKE '%denied' THEN 'denied' WHEN faults LIKE '%corrupt' THEN 'corrupt'
				WHEN faults LIKE '%unreachable' OR faults LIKE '%stalled' THEN 'unreachable' ELSE 'ok' END;
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
SELECT set_faults('platform:denied');
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
SELECT set_faults('platform:unreachable');
SELECT envelope_evict_all() >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);
SET envelope.unreadable = 'null';
SELECT outcome($$SELECT envelope_decrypt('t1', v) FROM v$$) AS never_null;
RESET envelope.unreadable;
SELECT ok, outcome, detail FROM envelope_check_kek('platform');

ALTER SYSTEM SET envelope.local_kek_faults = 'platform:corrupt';
SELECT set_faults('platform:corrupt');
SELECT envelope_evict_all() >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);

ALTER SYSTEM SET envelope.local_kek_faults = 'platform:stalled';
SELECT set_faults('platform:stalled');
SELECT envelope_evict_all() >= 0;
SELECT message($$SELECT envelope_decrypt('t1', v) FROM v$$);

-- All is well again, without help.
ALTER SYSTEM RESET envelope.local_kek_faults;
RESET envelope.kms_timeout;
SELECT set_faults('');
SELECT envelope_decrypt('t1', v) FROM v;
SELECT kek, outcome FROM envelope.status;
SELECT severity, subject FROM envelope_doctor();
SELECT operation, ok > 0 AS ok, denied > 0 AS denied, unreachable > 0 AS unreachable, corrupt > 0 AS corrupt, waits > 0 AS waits,
	calls = ok + denied + unreachable + corrupt + misconfigured AS sum, p50_ms IS NOT NULL AS p50, p99_ms >= p50_ms AS p99
FROM envelope.kms_stats WHERE kek = 'platform' ORDER BY operation;
-- Nothing was made of what failed.
SELECT count(*) AS nothing_made FROM envelope.tenants WHERE tenant_id = 'f1';
