-- Tenants are destroyed by request, approval and time; KEKs change without the data.

CREATE TABLE left_behind (tenant_id uuid, body bytea);
SELECT envelope_create_tenant('6a7f5c1e-0000-4000-8000-000000000001'::uuid) > 0 AS made;
INSERT INTO left_behind SELECT '6a7f5c1e-0000-4000-8000-000000000001', envelope_encrypt('6a7f5c1e-0000-4000-8000-000000000001'::uuid, 'gone soon', 'l') FROM generate_series(1, 3);
SELECT envelope_register_column('left_behind', 'body', 'tenant_id', 'l');
\set me :USER
\set t '\'6a7f5c1e-0000-4000-8000-000000000001\'::uuid'
SELECT i AS after, outcome(format($$SELECT envelope_schedule_destroy('t1', %L)$$, i)) FROM unnest(array['6 days', '31 days', '-7 days', NULL]) i;
SELECT outcome($$SELECT envelope_schedule_destroy('nobody')$$) AS unknown, outcome($$SELECT envelope_approve_destroy('t1')$$) AS not_requested,
	outcome($$SELECT envelope_cancel_destroy('t1')$$) AS nothing_to_cancel;

SELECT * FROM envelope_schedule_destroy(:t, '7 days');
SELECT message(format($$SELECT envelope_decrypt(tenant_id, body, 'l') FROM left_behind$$));
SELECT outcome(format($$SELECT envelope_schedule_destroy(%s)$$, quote_literal(:t) || '::uuid')) AS twice,
	outcome(format($$SELECT envelope_resume_tenant(%s)$$, quote_literal(:t) || '::uuid')) AS resume;
SELECT tenant_id = :t::text AS same, destroy_after - requested_at AS window, previous_state, approved_by, loss FROM envelope.destroy_requests WHERE ended_at IS NULL;
-- who has requested does not approve, whatever they SET ROLE to
CREATE ROLE regress_second SUPERUSER LOGIN;
SET ROLE regress_second;
SELECT outcome(format($$SELECT envelope_approve_destroy(%s)$$, quote_literal(:t) || '::uuid')) AS set_role;
RESET ROLE;
SET SESSION AUTHORIZATION regress_second;
SELECT outcome(format($$SELECT envelope_approve_destroy(%s)$$, quote_literal(:t) || '::uuid')) AS session_authorization;
RESET SESSION AUTHORIZATION;
-- cancelled, all is as it was
SELECT envelope_cancel_destroy(:t);
SELECT envelope_decrypt(tenant_id, body, 'l') FROM left_behind LIMIT 1;
SELECT outcome FROM envelope.destroy_requests;
-- a suspended tenant is suspended afterwards
SELECT envelope_suspend_tenant(:t);
SELECT count(*) FROM envelope_schedule_destroy(:t);
SELECT envelope_cancel_destroy(:t);
SELECT state FROM envelope.tenants WHERE tenant_id = :t::text;
SELECT envelope_resume_tenant(:t);

-- To the end: not before the time, nor without the approval.
SELECT count(*) FROM envelope_schedule_destroy(:t, '7 days');
UPDATE envelope.destroy_requests SET destroy_after = now() WHERE ended_at IS NULL;
SET client_min_messages = error;
CALL envelope_run_maintenance();
RESET client_min_messages;
SELECT state FROM envelope.tenants WHERE tenant_id = :t::text;
\c - regress_second
SELECT envelope_approve_destroy('6a7f5c1e-0000-4000-8000-000000000001'::uuid) AS wanted;
SELECT outcome($$SELECT envelope_approve_destroy('6a7f5c1e-0000-4000-8000-000000000001'::uuid)$$) AS twice;
UPDATE envelope.destroy_requests SET destroy_after = now() + '1 hour' WHERE ended_at IS NULL;
SET client_min_messages = error;
CALL envelope_run_maintenance();
RESET client_min_messages;
SELECT state FROM envelope.tenants WHERE tenant_id = '6a7f5c1e-0000-4000-8000-000000000001';
UPDATE envelope.destroy_requests SET destroy_after = now() WHERE ended_at IS NULL;
SET client_min_messages = error;
CALL envelope_run_maintenance();
RESET client_min_messages;
SELECT purpose, state, wrapped_dek IS NULL AS gone FROM envelope.tenant_keys WHERE tenant_id = '6a7f5c1e-0000-4000-8000-000000000001' ORDER BY 1;
SELECT message($$SELECT envelope_decrypt(tenant_id, body, 'l') FROM left_behind LIMIT 1$$);
SELECT outcome($$SELECT envelope_cancel_destroy('6a7f5c1e-0000-4000-8000-000000000001'::uuid)$$) AS too_late,
	outcome($$SELECT envelope_create_tenant('6a7f5c1e-0000-4000-8000-000000000001')$$) AS again;
SELECT event FROM envelope.audit_log WHERE tenant_id = '6a7f5c1e-0000-4000-8000-000000000001' AND event LIKE 'destroy%' ORDER BY audit_id;

-- KEKs: a tenant moves, with all its keys; the data stays where it is.
SELECT envelope_create_kek('second', 'local://platform'), envelope_create_kek('absent', 'local://absent');
SELECT kek FROM envelope.tenants WHERE tenant_id = 't1';
CREATE TABLE moved AS SELECT envelope_encrypt('t1', 'moved') AS v;
SELECT envelope_set_tenant_kek('t1', 'second') > 1 AS moved;
SELECT DISTINCT kek FROM envelope.tenant_keys WHERE tenant_id = 't1' AND state <> 'destroyed';
SELECT outcome($$SELECT envelope_set_tenant_kek('t1', 'absent')$$) AS absent, outcome($$SELECT envelope_set_tenant_kek('t1', 'nothing')$$) AS unknown,
	outcome($$SELECT envelope_set_tenant_kek('nobody', 'second')$$) AS no_tenant, outcome($$SELECT envelope_set_tenant_kek('6a7f5c1e-0000-4000-8000-000000000001'::uuid, 'second')$$) AS destroyed;
SELECT envelope_evict_all() >= 0 AS evicted;
SELECT envelope_decrypt('t1', v) FROM moved;
CALL envelope_rotate_kek('second', 'platform');
SELECT DISTINCT kek FROM envelope.tenant_keys WHERE tenant_id = 't1' AND state <> 'destroyed';
SELECT kek, new_kek, phase, rows_reencrypted > 1 AS moved FROM envelope.rotations WHERE kind = 'kek' ORDER BY rotation_id DESC LIMIT 1;
CALL envelope_rotate_kek('nothing');
CALL envelope_rotate_kek('second', 'nothing');
SELECT envelope_evict_all() >= 0 AS evicted;
SELECT envelope_decrypt('t1', v) FROM moved;
SELECT envelope_drop_kek('absent');
DROP TABLE moved, left_behind;

-- Schedules
SELECT outcome($$SELECT envelope_set_rotation_interval('nobody', '1 day')$$) AS unknown, outcome($$SELECT envelope_set_rotation_interval('t1', '0')$$) AS zero,
	outcome($$SELECT envelope_set_kek_rotation_interval('nothing', '1 day')$$) AS no_kek;
SELECT envelope_set_rotation_interval(NULL, '90 days'), envelope_set_rotation_interval('t1', '1 millisecond'), envelope_set_kek_rotation_interval('platform', '365 days');
SELECT * FROM envelope.rotation_intervals ORDER BY 1, 2;
SELECT count(*) AS before FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data' \gset
SET client_min_messages = error;
CALL envelope_run_maintenance();
RESET client_min_messages;
SELECT count(*) - :before AS new_keys FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data';
SELECT envelope_set_rotation_interval('t1', NULL), envelope_set_rotation_interval(NULL, NULL), envelope_set_kek_rotation_interval('platform', NULL);
SELECT count(*) AS intervals FROM envelope.rotation_intervals;
\c - :me
DROP ROLE regress_second;
