-- KEKs and tenants: making them, and everything that is refused.

-- KEKs
SELECT envelope_create_kek('eu', 'local://eu', '{}');
SELECT name, uri, options, is_default FROM envelope.keks ORDER BY name;
SELECT message($$SELECT envelope_create_kek('eu', 'local://other')$$);
SELECT message($$SELECT envelope_create_kek('x', 'carrier-pigeon://x')$$);
SELECT message($$SELECT envelope_create_kek('x', 'local://')$$);
SELECT message($$SELECT envelope_create_kek('x', 'local://a/../b')$$);
SELECT outcome(format('SELECT envelope_create_kek(%L, %L)', 'x', 'local://' || repeat('a', 2000))) AS long_uri;
SELECT message($$SELECT envelope_create_kek('x', 'local://x', '{"region": "here"}')$$);
SELECT message($$SELECT envelope_create_kek('x', 'local://x', '{"secret_id": "hunter2"}')$$);
SELECT message($$SELECT envelope_create_kek('x', 'local://x', '{"AWS": {"aws_secret_access_key": "hunter2"}}')$$);
SELECT message($$SELECT envelope_create_kek('x', 'https://user:hunter2@kms/')$$);
SELECT outcome($$SELECT envelope_create_kek('x', 'local://x', '[]')$$) AS array,
	outcome($$SELECT envelope_create_kek('x', 'local://x', '"x"')$$) AS string,
	outcome($$SELECT envelope_create_kek('', 'local://x')$$) AS empty_name,
	outcome($$SELECT envelope_create_kek(repeat('x', 64), 'local://x')$$) AS long_name,
	outcome($$SELECT envelope_create_kek('a b', 'local://x')$$) AS name_with_space,
	outcome($$SELECT envelope_create_kek(NULL, 'local://x')$$) AS null_name,
	outcome($$SELECT envelope_create_kek('x', NULL)$$) AS null_uri,
	outcome($$SELECT envelope_create_kek('x', 'local://x', NULL)$$) AS null_options;
-- a secret in whatever place: refused, and not repeated
SELECT statement, result ~ '^22023' AS refused, result LIKE '%hunter2%' AS echoed
FROM unnest(array['local://platform?token=hunter2', 'local://hunter2/key', 'local://user:hunter2@platform', 'LOCAL://hunter2', ' local://hunter2', '']) statement,
	LATERAL message(format('SELECT envelope_create_kek(%L, %L)', 'x', statement)) result;
SELECT statement, result ~ '^22023' AS refused, result LIKE '%hunter2%' AS echoed
FROM unnest(array['{"Token": "hunter2"}', '{"a": {"b": ["hunter2"]}}', '{"region": 5, "x": "hunter2"}', '{"": "hunter2"}', 'null', '"hunter2"']) statement,
	LATERAL message(format('SELECT envelope_create_kek(%L, %L, %L)', 'x', 'local://x', statement)) result;
SELECT name FROM envelope.keks ORDER BY name;
SELECT envelope_create_kek(repeat('x', 63), 'local://longest'), envelope_drop_kek(repeat('x', 63));

-- There is one default at most, and it can be moved or given up.
SELECT envelope_alter_kek('eu', is_default => true);
SELECT name, is_default FROM envelope.keks ORDER BY name;
SELECT envelope_alter_kek('eu', is_default => false);
SELECT message($$SELECT envelope_create_tenant('t3')$$);
SELECT envelope_create_kek('us', 'local://us', is_default => true);
SELECT envelope_alter_kek('platform', is_default => true);
SELECT name, is_default FROM envelope.keks ORDER BY name;
SELECT message($$SELECT envelope_alter_kek('nope', is_default => true)$$);
SELECT message($$SELECT envelope_alter_kek('eu', options => '{"token": "hunter2"}')$$);
SELECT outcome($$SELECT envelope_alter_kek(NULL, '{}')$$) AS null_name, outcome($$SELECT envelope_alter_kek('eu', '[]')$$) AS array,
	outcome($$SELECT envelope_drop_kek(NULL)$$) AS drop_null, outcome($$SELECT * FROM envelope_check_kek(NULL)$$) AS check_null;
-- Nothing secret gets in: refused by its name, however it is written, and not shown.
SELECT o, message(format('SELECT envelope_create_kek(%L, %L, %L)', 'x', 'hcvault://v:8200/transit/keys/k', o)) FROM unnest(array[
	'{"token": "hunter2"}', '{"Secret_ID": "hunter2"}', '{"aws_secret_access_key": "hunter2"}', '{"AWS-Session.Token": "hunter2"}',
	'{"profile": {"token": "hunter2"}}', '{"profile": "ok", "password": "hunter2"}', '{"region": "eu"}']) o;
SELECT u, message(format('SELECT envelope_create_kek(%L, %L)', 'x', u)) FROM unnest(array[
	'hcvault://user:hunter2@v:8200/transit/keys/k', 'hcvault://v:8200/transit/keys/k?token=hunter2', 'hcvault://v/transit/../sys/keys/k', 'hcvault://v/k',
	'aws-kms://arn:aws:kms:eu-central-1:hunter2:key/1', 'aws-kms://alias/x', 'aws-kms://arn:aws:s3:eu-central-1:1:key/1', 'aws-kms://arn:aws:kms:evil.example/:1:key/1',
	'gcp-kms://projects/p/locations/l/keyRings/r', 'gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1', 'gcp-kms://projects/p?hunter2']) u;
SELECT message($$INSERT INTO envelope.keks (name, uri, options) VALUES ('x', 'local://x', '{"a": [{"client_secret": "hunter2"}]}')$$);
SELECT message($$INSERT INTO envelope.keks (name, uri) VALUES ('x', 'https://user:hunter2@kms/')$$);
SELECT message($$UPDATE envelope.keks SET options = '{"token": "hunter2"}' WHERE name = 'eu'$$);
SELECT outcome($$SELECT envelope_create_kek('x', 'hcvault://[::1]:8200/a/b/keys/k.1', '{"namespace": "n/m", "profile": "p"}')$$) AS vault, outcome($$SELECT envelope_drop_kek('x')$$) AS dropped,
	outcome($$SELECT envelope_create_kek('x', 'aws-kms://arn:aws:kms:eu-central-1:123456789012:alias/aws/x', '{"role_arn": "arn:aws:iam::1:role/x", "external_id": "e"}')$$) AS aws, outcome($$SELECT envelope_drop_kek('x')$$) AS dropped,
	outcome($$SELECT envelope_create_kek('x', 'gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k')$$) AS gcp, outcome($$SELECT envelope_drop_kek('x')$$) AS dropped;
SELECT envelope_alter_kek('eu');
SELECT message($$UPDATE envelope.keks SET uri = 'local://platform' WHERE name = 'eu'$$);

-- A KEK is not asked when it is made, but when it is used.
SELECT ok, outcome, detail FROM envelope_check_kek('us');
SELECT message($$SELECT envelope_create_tenant('t3', 'us')$$);
SELECT message($$SELECT * FROM envelope_check_kek('nope')$$);
SELECT message($$SELECT envelope_create_tenant('t3', 'nope')$$);
SELECT outcome($$SELECT envelope_create_tenants(array['t3', 't4'], 'us')$$) AS many, outcome($$SELECT envelope_create_tenant('t3', '')$$) AS empty;
SELECT count(*) AS made FROM envelope.tenants WHERE tenant_id IN ('t3', 't4');

SELECT message($$SELECT envelope_drop_kek('platform')$$);
SELECT message($$SELECT envelope_drop_kek('nope')$$);
SELECT envelope_drop_kek('us');
SELECT envelope_drop_kek('eu');
SELECT name FROM envelope.keks;

-- Tenants
SELECT envelope_create_tenant('t3') AS key_id \gset
SELECT purpose, state FROM envelope.tenant_keys WHERE key_id = :key_id AND tenant_id = 't3';
SELECT message($$SELECT envelope_create_tenant('t3')$$);
SELECT outcome($$SELECT envelope_create_tenant('')$$) AS empty,
	outcome($$SELECT envelope_create_tenant(NULL::text)$$) AS null,
	outcome($$SELECT envelope_create_tenant(repeat('x', 256))$$) AS long,
	outcome($$SELECT envelope_create_tenant(repeat('ü', 128))$$) AS long_in_utf8,
	outcome($$SELECT envelope_create_tenant(repeat('ü', 127)) > 0$$) AS longest;
SELECT envelope_create_tenant(-9223372036854775808) > 0 AS smallest, envelope_decrypt('-9223372036854775808',
	envelope_encrypt(-9223372036854775808, 'x')) AS its_text;
SELECT envelope_create_tenant(1001) > 0 AS bigint,
	envelope_create_tenant('00000000-0000-0000-0000-0000000003e9'::uuid) > 0 AS uuid;
-- all or none
SELECT envelope_create_tenants(array['a1', 'a2', 'a3']);
SELECT outcome($$SELECT envelope_create_tenants(array['a4', 'a1', 'a5'])$$) AS existing,
	outcome($$SELECT envelope_create_tenants(array['a4', 'a5', 'a4'])$$) AS twice,
	outcome($$SELECT envelope_create_tenants(array['a4', NULL])$$) AS null_element,
	outcome($$SELECT envelope_create_tenants(array['a4', ''])$$) AS empty_element,
	outcome($$SELECT envelope_create_tenants(NULL)$$) AS null,
	envelope_create_tenants('{}') AS none;
SELECT tenant_id, count(k.*) AS keys FROM envelope.tenants t LEFT JOIN envelope.tenant_keys k USING (tenant_id)
WHERE tenant_id LIKE 'a_' GROUP BY 1 ORDER BY 1;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT envelope_create_tenant('s1');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT envelope_create_tenant('s1') > 0 AS repeatable_read;
COMMIT;

-- Keys of tenants are their own, however the rows are changed.
SELECT count(DISTINCT key_id) = count(*) AS distinct_ids, count(DISTINCT wrapped_dek) = count(*) AS distinct_keys,
	bool_and(key_id > 0) AS positive FROM envelope.tenant_keys;

-- The trigger for the application's table of tenants, in all its forms
CREATE TABLE orgs (id text PRIMARY KEY, kek text);
CREATE TRIGGER provision AFTER INSERT ON orgs FOR EACH ROW EXECUTE FUNCTION envelope_provision('id', 'kek');
INSERT INTO orgs VALUES ('o1', 'platform'), ('o2', NULL), ('t1', NULL);
INSERT INTO orgs VALUES ('o3', 'nope');
INSERT INTO orgs VALUES ('', NULL);
COPY orgs (id) FROM stdin;
o4
o5
\.
SELECT o.id, envelope_decrypt(o.id, envelope_encrypt(o.id, 'x')) FROM orgs o ORDER BY 1;
CREATE TABLE accounts (id uuid PRIMARY KEY, n int, b bigint, v varchar(10), r real);
CREATE TRIGGER provision_id BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('id');
CREATE TRIGGER provision_n BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('n');
CREATE TRIGGER provision_b BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('b');
CREATE TRIGGER provision_v BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('v');
-- used in the statement that makes it
WITH made AS (INSERT INTO accounts VALUES ('00000000-0000-0000-0000-0000000000a1', 7001, 7002, 'v7003') RETURNING *)
SELECT envelope_decrypt(n, envelope_encrypt(n, 'int')), envelope_decrypt(id, envelope_encrypt(id, 'uuid')) FROM made;
SELECT tenant_id FROM envelope.tenants WHERE tenant_id ~ '700|0a1$' ORDER BY 1;
SELECT message($$INSERT INTO accounts VALUES ('00000000-0000-0000-0000-0000000000a2', NULL, 1, 'v')$$);
CREATE TRIGGER provision_r BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('r');
SELECT message($$INSERT INTO accounts VALUES ('00000000-0000-0000-0000-0000000000a2', 7004, 7005, 'v7006', 1)$$);
DROP TRIGGER provision_r ON accounts;
CREATE TRIGGER provision_none BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('nope');
SELECT message($$INSERT INTO accounts VALUES ('00000000-0000-0000-0000-0000000000a2', 7004, 7005, 'v7006', 1)$$);
DROP TRIGGER provision_none ON accounts;
CREATE TRIGGER provision_update BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION envelope_provision('id');
SELECT outcome($$UPDATE accounts SET n = 1$$) AS on_update, outcome($$SELECT envelope_provision()$$) AS called;
SELECT count(*) AS nothing_made FROM envelope.tenants WHERE tenant_id IN ('7004', '7005', 'v7006');
DROP TABLE orgs, accounts;

-- Suspending and resuming, as often as one likes
SELECT envelope_suspend_tenant('a1'), envelope_suspend_tenant('a1');
SELECT message($$SELECT envelope_encrypt('a1', 'x')$$);
SELECT outcome($$SELECT envelope_blind_index('a1', 'x')$$) AS term;
SELECT envelope_resume_tenant('a1'), envelope_resume_tenant('a1');
SELECT envelope_encrypt('a1', 'x') IS NOT NULL AS resumed;
SELECT outcome($$SELECT envelope_create_tenant('a1')$$) AS made_again, outcome($$SELECT envelope_create_tenants(array['a1'])$$) AS many_again;
SELECT envelope_suspend_tenant(1001), envelope_resume_tenant(1001),
	envelope_suspend_tenant('00000000-0000-0000-0000-0000000003e9'::uuid),
	envelope_resume_tenant('00000000-0000-0000-0000-0000000003e9'::uuid);
SELECT outcome($$SELECT envelope_suspend_tenant('nobody')$$) AS unknown, outcome($$SELECT envelope_suspend_tenant(NULL::text)$$) AS null;

-- Memory: what is there, warming, evicting
SELECT envelope_evict_all() >= 0 AS evicted;
SELECT count(*) FROM envelope.cache WHERE database = current_database();
SELECT envelope_warm(array['a1', 'a2']) AS warmed, envelope_warm(array['a1', 'a2']) AS again;
SELECT tenant_id, purpose, state, age < '1 min' AS age, expires_in BETWEEN '1 min' AND '5 min' AS expires_in, hits >= 0 AS hits
FROM envelope.cache WHERE database = current_database() ORDER BY 1, 2;
SELECT envelope_evict('a1') AS evicted, envelope_evict('a1') AS again, envelope_evict(42) AS bigint;
SELECT envelope_warm(array['00000000-0000-0000-0000-0000000003e9']) AS warmed,
	envelope_evict('00000000-0000-0000-0000-0000000003e9'::uuid) AS uuid;
SELECT outcome($$SELECT envelope_evict('nobody')$$) AS evict_unknown, outcome($$SELECT envelope_warm(array['nobody'])$$) AS warm_unknown,
	outcome($$SELECT envelope_warm(array[NULL::text])$$) AS warm_null;
SELECT envelope_suspend_tenant('a2');
SELECT envelope_warm(array['a2']) AS suspended_is_left_out;
SELECT envelope_resume_tenant('a2');
SELECT envelope_warm() = count(*) AS warm_all FROM envelope.tenant_keys WHERE state = 'active';
