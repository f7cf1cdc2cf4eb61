-- The tables of bench/run: values of 32 bytes, plain and sealed in every way.

CREATE EXTENSION envelope;
CREATE EXTENSION pgcrypto;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_create_tenants(array(SELECT 't' || g FROM generate_series(1, 10000) g));

-- The time in ms that a query takes.
CREATE FUNCTION time_of(query text) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz := clock_timestamp();
BEGIN
	EXECUTE query;
	RETURN extract(epoch FROM clock_timestamp() - start) * 1000;
END
$$;

CREATE TABLE plain AS
	SELECT g AS id, md5(g::text) AS value FROM generate_series(1, :rows) g;
CREATE TABLE sealed AS
	SELECT id, envelope_encrypt('t1', value, 'public.sealed.value') AS value FROM plain;
CREATE TABLE by_encrypt_iv AS
	SELECT id, gen_random_bytes(16) AS iv, ''::bytea AS value FROM plain LIMIT 0;
INSERT INTO by_encrypt_iv
	SELECT id, iv, encrypt_iv(value::bytea, 'a key of thirty-two bytes, no mo', iv, 'aes-cbc')
	FROM (SELECT id, value, gen_random_bytes(16) AS iv FROM plain) s;
CREATE TABLE by_pgp AS
	SELECT id, pgp_sym_encrypt(value, 'a passphrase', 's2k-mode=0') AS value
	FROM plain LIMIT :rows / 50;

-- Values of 10, 500 and 10,000 tenants, in random order.
SELECT setseed(0.5);
CREATE TABLE of_tenants AS
	SELECT n AS tenants, 't' || (1 + floor(random() * n)) AS tenant, value
	FROM plain, unnest(array[10, 500, 10000]) n;
CREATE TABLE sealed_10 AS
	SELECT tenant, envelope_encrypt(tenant, value, 'c') AS value FROM of_tenants WHERE tenants = 10;
CREATE TABLE sealed_500 AS
	SELECT tenant, envelope_encrypt(tenant, value, 'c') AS value FROM of_tenants WHERE tenants = 500;
SELECT envelope_warm();
CREATE TABLE sealed_10000 AS
	SELECT tenant, envelope_encrypt(tenant, value, 'c') AS value FROM of_tenants WHERE tenants = 10000;
DROP TABLE of_tenants;
VACUUM ANALYZE;
