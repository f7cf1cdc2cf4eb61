/* sql/envelope--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION envelope" to load this file. \quit

-- Whoever may create in the extension's schema could have put operators there
-- that fit better than PostgreSQL's own.  So it is not searched: everything
-- below is either qualified or PostgreSQL's.
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- Tables.  They live in a schema of their own, are dumped with the database,
-- and are written through the functions below.  They have no foreign keys: a
-- parallel restore fills them in any order.  Functions and guards see to it that
-- what is named exists, and envelope_doctor() looks.
--

CREATE SCHEMA envelope;
COMMENT ON SCHEMA envelope IS 'keys of tenants, and views on what envelope does';

CREATE TABLE envelope.keks (
	name text COLLATE "C" PRIMARY KEY,
	uri text COLLATE "C" NOT NULL,
	options jsonb NOT NULL DEFAULT '{}',
	is_default boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE UNIQUE INDEX keks_default ON envelope.keks (is_default) WHERE is_default;
COMMENT ON TABLE envelope.keks IS 'key encryption keys: where each is, never what it is';
COMMENT ON COLUMN envelope.keks.uri IS 'which key of which KMS; never changes';
COMMENT ON COLUMN envelope.keks.options IS 'what differs from KEK to KEK and is harmless; never credentials';
COMMENT ON COLUMN envelope.keks.is_default IS 'whether tenants get it that are made without naming a KEK';

CREATE TABLE envelope.tenants (
	tenant_id text COLLATE "C" PRIMARY KEY,
	kek text COLLATE "C",
	state text COLLATE "C" NOT NULL DEFAULT 'active'
		CHECK (state IN ('active', 'suspended', 'scheduled', 'destroyed')),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	state_changed_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX tenants_kek ON envelope.tenants (kek);
COMMENT ON TABLE envelope.tenants IS 'tenants; a row is never deleted';
COMMENT ON COLUMN envelope.tenants.tenant_id IS 'bound into every value of the tenant; never changes';
COMMENT ON COLUMN envelope.tenants.kek IS 'wraps the keys that the tenant gets from now on';
COMMENT ON COLUMN envelope.tenants.state IS 'active, suspended, scheduled (to be destroyed) or destroyed';

CREATE TABLE envelope.tenant_keys (
	key_id bigint PRIMARY KEY,
	tenant_id text COLLATE "C" NOT NULL,
	purpose text COLLATE "C" NOT NULL CHECK (purpose IN ('data', 'index')),
	kek text COLLATE "C",
	kek_version text COLLATE "C",
	wrapped_dek bytea CHECK (pg_catalog.octet_length(wrapped_dek) BETWEEN 1 AND 6144),
	key_check bytea NOT NULL CHECK (pg_catalog.octet_length(key_check) = 32),
	state text COLLATE "C" NOT NULL
		CHECK (state IN ('active', 'retired', 'scheduled', 'destroyed')),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	state_changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT tenant_keys_wrapped_check CHECK (
		CASE WHEN state = 'destroyed' THEN wrapped_dek IS NULL
			 ELSE wrapped_dek IS NOT NULL AND kek IS NOT NULL END)
);
CREATE UNIQUE INDEX tenant_keys_active ON envelope.tenant_keys (tenant_id, purpose)
	WHERE state = 'active';
CREATE INDEX tenant_keys_tenant ON envelope.tenant_keys (tenant_id);
CREATE INDEX tenant_keys_kek ON envelope.tenant_keys (kek, key_id);
COMMENT ON TABLE envelope.tenant_keys IS 'data keys of tenants, wrapped by KEKs; a row is never deleted';
COMMENT ON COLUMN envelope.tenant_keys.key_id IS 'random, never used twice; stands in every value sealed under the key';
COMMENT ON COLUMN envelope.tenant_keys.purpose IS 'data: random encryption; index: deterministic values and blind indexes';
COMMENT ON COLUMN envelope.tenant_keys.kek_version IS 'which version of the KEK wrapped it, as the KMS names it';
COMMENT ON COLUMN envelope.tenant_keys.wrapped_dek IS 'the data key as the KMS wrapped it; null when destroyed';
COMMENT ON COLUMN envelope.tenant_keys.key_check IS 'proves that an unwrapped key is this tenant''s key with this id and purpose';
COMMENT ON COLUMN envelope.tenant_keys.state IS 'active (seals and opens), retired (opens), scheduled (opens, nothing new is stored) or destroyed';

CREATE TABLE envelope.registered_columns (
	registration bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	table_name text NOT NULL,
	column_name name NOT NULL,
	tenant_column name NOT NULL,
	context text,
	context_expression text,
	registered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CHECK ((context IS NULL) <> (context_expression IS NULL))
);
COMMENT ON TABLE envelope.registered_columns IS 'columns that applications seal themselves, as they were called when they were registered; triggers on the tables know them by whatever name they have now';

CREATE TABLE envelope.rotations (
	rotation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	kind text COLLATE "C" NOT NULL CHECK (kind IN ('dek', 'kek', 'death')),
	tenant_id text COLLATE "C",
	new_key bigint,
	kek text COLLATE "C",
	new_kek text COLLATE "C",
	phase text COLLATE "C" NOT NULL,
	started_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	started_by text COLLATE "C" NOT NULL,
	finished_at timestamptz,
	pass bigint,
	pid integer,
	phase_at timestamptz,
	progress_at timestamptz,
	relation text,
	rows_seen bigint NOT NULL DEFAULT 0,
	rows_estimated bigint NOT NULL DEFAULT 0,
	rows_reencrypted bigint NOT NULL DEFAULT 0,
	waits_for text,
	last_key bigint,
	proof jsonb,
	error text
);
CREATE UNIQUE INDEX rotations_unfinished ON envelope.rotations (tenant_id)
	WHERE kind = 'dek' AND finished_at IS NULL;
CREATE INDEX rotations_tenant ON envelope.rotations (tenant_id, rotation_id);
COMMENT ON TABLE envelope.rotations IS 'rotations of keys, under way and done, and what was proven';
COMMENT ON COLUMN envelope.rotations.kind IS 'dek: a tenant''s data key; kek: the keys under a KEK were re-wrapped; death: retired keys were destroyed';
COMMENT ON COLUMN envelope.rotations.phase IS 'reencrypt, wait, scan, rewrap while unfinished; proven, unproven, done, incomplete, superseded or failed when finished';
COMMENT ON COLUMN envelope.rotations.pass IS 'the rotation whose row tells the progress of this one';
COMMENT ON COLUMN envelope.rotations.proof IS 'which keys no row of which columns was under, when it was looked at after every transaction that could still seal under them had ended';

CREATE TABLE envelope.live_protections (
	relid oid PRIMARY KEY,
	phase text COLLATE "C" NOT NULL,
	started_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	started_by text COLLATE "C" NOT NULL,
	pid integer NOT NULL,
	phase_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	progress_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	rows_done bigint NOT NULL DEFAULT 0,
	rows_estimated bigint NOT NULL DEFAULT 0,
	waits_for text,
	sqlstate text COLLATE "C",
	error text
);
COMMENT ON TABLE envelope.live_protections IS 'tables that are being protected live; what there is to do is in their own catalogs, and what is here is for the view envelope.protect_progress';

CREATE TABLE envelope.rotation_intervals (
	kind text COLLATE "C" NOT NULL CHECK (kind IN ('default', 'tenant', 'kek')),
	subject text COLLATE "C" NOT NULL,
	every interval NOT NULL,
	PRIMARY KEY (kind, subject)
);
COMMENT ON TABLE envelope.rotation_intervals IS 'how often maintenance rotates keys: of tenants, of those that have no interval of their own, and under KEKs';

CREATE TABLE envelope.destroy_requests (
	request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant_id text COLLATE "C" NOT NULL,
	requested_by text COLLATE "C" NOT NULL,
	requested_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	destroy_after timestamptz NOT NULL,
	previous_state text COLLATE "C" NOT NULL,
	approved_by text[] COLLATE "C" NOT NULL DEFAULT '{}',
	loss jsonb NOT NULL,
	ended_at timestamptz,
	outcome text COLLATE "C" CHECK (outcome IN ('cancelled', 'destroyed'))
);
CREATE UNIQUE INDEX destroy_requests_open ON envelope.destroy_requests (tenant_id)
	WHERE ended_at IS NULL;
COMMENT ON TABLE envelope.destroy_requests IS 'requests to destroy a tenant, and who has approved them';
COMMENT ON COLUMN envelope.destroy_requests.requested_by IS 'who the session logged in as, as in approved_by';
COMMENT ON COLUMN envelope.destroy_requests.loss IS 'how many values of which columns the tenant had at the request';

CREATE TABLE envelope.audit_log (
	audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	event text COLLATE "C" NOT NULL,
	tenant_id text COLLATE "C",
	kek text COLLATE "C",
	key_id bigint,
	details jsonb,
	login text COLLATE "C" NOT NULL,
	role text COLLATE "C" NOT NULL,
	client inet,
	application text,
	pid integer NOT NULL
);
CREATE INDEX audit_log_tenant ON envelope.audit_log (tenant_id, audit_id);
COMMENT ON TABLE envelope.audit_log IS 'what was done to keys, by transactions that have committed; rows are only added';
COMMENT ON COLUMN envelope.audit_log.event IS 'such as tenant.create, rotation.begin or destroy.approve';
COMMENT ON COLUMN envelope.audit_log.login IS 'who the session logged in as';
COMMENT ON COLUMN envelope.audit_log.role IS 'what SET ROLE had made of it';
COMMENT ON COLUMN envelope.audit_log.client IS 'where the session came from; null for a socket of the server''s machine';

SELECT pg_catalog.pg_extension_config_dump('envelope.keks', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.tenants', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.tenant_keys', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.registered_columns', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.registered_columns_registration_seq', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.rotations', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.rotations_rotation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.rotation_intervals', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.destroy_requests', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.destroy_requests_request_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.audit_log', '');
SELECT pg_catalog.pg_extension_config_dump('envelope.audit_log_audit_id_seq', '');

--
-- Guards.  ALWAYS, so that they fire for restores and replication too.
--

CREATE FUNCTION envelope.guard_keks() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_guard_keks';
COMMENT ON FUNCTION envelope.guard_keks() IS 'trigger on envelope.keks: refuses what would lose a key, and keeps memory true to the table';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON envelope.keks
	FOR EACH ROW EXECUTE FUNCTION envelope.guard_keks();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON envelope.keks
	FOR EACH STATEMENT EXECUTE FUNCTION envelope.guard_keks();
ALTER TABLE envelope.keks ENABLE ALWAYS TRIGGER guard;
ALTER TABLE envelope.keks ENABLE ALWAYS TRIGGER guard_truncate;

CREATE FUNCTION envelope.guard_tenants() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_guard_tenants';
COMMENT ON FUNCTION envelope.guard_tenants() IS 'trigger on envelope.tenants: refuses what would lose a key, and keeps memory true to the table';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON envelope.tenants
	FOR EACH ROW EXECUTE FUNCTION envelope.guard_tenants();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON envelope.tenants
	FOR EACH STATEMENT EXECUTE FUNCTION envelope.guard_tenants();
ALTER TABLE envelope.tenants ENABLE ALWAYS TRIGGER guard;
ALTER TABLE envelope.tenants ENABLE ALWAYS TRIGGER guard_truncate;

CREATE FUNCTION envelope.guard_tenant_keys() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_guard_tenant_keys';
COMMENT ON FUNCTION envelope.guard_tenant_keys() IS 'trigger on envelope.tenant_keys: refuses what would lose a key, and keeps memory true to the table';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON envelope.tenant_keys
	FOR EACH ROW EXECUTE FUNCTION envelope.guard_tenant_keys();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON envelope.tenant_keys
	FOR EACH STATEMENT EXECUTE FUNCTION envelope.guard_tenant_keys();
ALTER TABLE envelope.tenant_keys ENABLE ALWAYS TRIGGER guard;
ALTER TABLE envelope.tenant_keys ENABLE ALWAYS TRIGGER guard_truncate;

CREATE FUNCTION envelope.guard_audit_log() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_guard_audit_log';
COMMENT ON FUNCTION envelope.guard_audit_log() IS 'trigger on envelope.audit_log: refuses to change or take away rows';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON envelope.audit_log
	FOR EACH ROW EXECUTE FUNCTION envelope.guard_audit_log();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON envelope.audit_log
	FOR EACH STATEMENT EXECUTE FUNCTION envelope.guard_audit_log();
ALTER TABLE envelope.audit_log ENABLE ALWAYS TRIGGER guard;
ALTER TABLE envelope.audit_log ENABLE ALWAYS TRIGGER guard_truncate;

--
-- Values.  Not strict: a null value gives null, a null tenant or context beside
-- a value is an error.
--

CREATE FUNCTION @extschema@.envelope_encrypt(tenant text, plaintext text, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_text_for_text';
COMMENT ON FUNCTION @extschema@.envelope_encrypt(text, text, text) IS 'seal a value under the tenant''s active key';

CREATE FUNCTION @extschema@.envelope_encrypt(tenant bigint, plaintext text, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_text_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_encrypt(bigint, text, text) IS 'seal a value under the tenant''s active key';

CREATE FUNCTION @extschema@.envelope_encrypt(tenant uuid, plaintext text, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_text_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_encrypt(uuid, text, text) IS 'seal a value under the tenant''s active key';

CREATE FUNCTION @extschema@.envelope_encrypt(tenant text, plaintext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_bytea_for_text';
COMMENT ON FUNCTION @extschema@.envelope_encrypt(text, bytea, text) IS 'seal a value under the tenant''s active key';

CREATE FUNCTION @extschema@.envelope_encrypt(tenant bigint, plaintext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_bytea_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_encrypt(bigint, bytea, text) IS 'seal a value under the tenant''s active key';

CREATE FUNCTION @extschema@.envelope_encrypt(tenant uuid, plaintext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_bytea_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_encrypt(uuid, bytea, text) IS 'seal a value under the tenant''s active key';

CREATE FUNCTION @extschema@.envelope_decrypt(tenant text, ciphertext bytea, context text DEFAULT '') RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_decrypt_for_text';
COMMENT ON FUNCTION @extschema@.envelope_decrypt(text, bytea, text) IS 'open a value that was sealed as text';

CREATE FUNCTION @extschema@.envelope_decrypt(tenant bigint, ciphertext bytea, context text DEFAULT '') RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_decrypt_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_decrypt(bigint, bytea, text) IS 'open a value that was sealed as text';

CREATE FUNCTION @extschema@.envelope_decrypt(tenant uuid, ciphertext bytea, context text DEFAULT '') RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_decrypt_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_decrypt(uuid, bytea, text) IS 'open a value that was sealed as text';

CREATE FUNCTION @extschema@.envelope_decrypt_bytea(tenant text, ciphertext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_decrypt_bytea_for_text';
COMMENT ON FUNCTION @extschema@.envelope_decrypt_bytea(text, bytea, text) IS 'open a value that was sealed as bytea';

CREATE FUNCTION @extschema@.envelope_decrypt_bytea(tenant bigint, ciphertext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_decrypt_bytea_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_decrypt_bytea(bigint, bytea, text) IS 'open a value that was sealed as bytea';

CREATE FUNCTION @extschema@.envelope_decrypt_bytea(tenant uuid, ciphertext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_decrypt_bytea_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_decrypt_bytea(uuid, bytea, text) IS 'open a value that was sealed as bytea';

CREATE FUNCTION @extschema@.envelope_encrypt_deterministic(tenant text, plaintext text, context text DEFAULT '') RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_deterministic_text_for_text';
COMMENT ON FUNCTION @extschema@.envelope_encrypt_deterministic(text, text, text) IS 'seal a value so that equal values of a tenant and context give equal bytes';

CREATE FUNCTION @extschema@.envelope_encrypt_deterministic(tenant bigint, plaintext text, context text DEFAULT '') RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_deterministic_text_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_encrypt_deterministic(bigint, text, text) IS 'seal a value so that equal values of a tenant and context give equal bytes';

CREATE FUNCTION @extschema@.envelope_encrypt_deterministic(tenant uuid, plaintext text, context text DEFAULT '') RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_deterministic_text_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_encrypt_deterministic(uuid, text, text) IS 'seal a value so that equal values of a tenant and context give equal bytes';

CREATE FUNCTION @extschema@.envelope_encrypt_deterministic(tenant text, plaintext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_deterministic_bytea_for_text';
COMMENT ON FUNCTION @extschema@.envelope_encrypt_deterministic(text, bytea, text) IS 'seal a value so that equal values of a tenant and context give equal bytes';

CREATE FUNCTION @extschema@.envelope_encrypt_deterministic(tenant bigint, plaintext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_deterministic_bytea_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_encrypt_deterministic(bigint, bytea, text) IS 'seal a value so that equal values of a tenant and context give equal bytes';

CREATE FUNCTION @extschema@.envelope_encrypt_deterministic(tenant uuid, plaintext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_encrypt_deterministic_bytea_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_encrypt_deterministic(uuid, bytea, text) IS 'seal a value so that equal values of a tenant and context give equal bytes';

CREATE FUNCTION @extschema@.envelope_blind_index(tenant text, plaintext text, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_blind_index_text_for_text';
COMMENT ON FUNCTION @extschema@.envelope_blind_index(text, text, text, integer) IS 'keyed hash of a value, 16 to 256 bits, for an index to search by';

CREATE FUNCTION @extschema@.envelope_blind_index(tenant bigint, plaintext text, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_blind_index_text_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_blind_index(bigint, text, text, integer) IS 'keyed hash of a value, 16 to 256 bits, for an index to search by';

CREATE FUNCTION @extschema@.envelope_blind_index(tenant uuid, plaintext text, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_blind_index_text_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_blind_index(uuid, text, text, integer) IS 'keyed hash of a value, 16 to 256 bits, for an index to search by';

CREATE FUNCTION @extschema@.envelope_blind_index(tenant text, plaintext bytea, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_blind_index_bytea_for_text';
COMMENT ON FUNCTION @extschema@.envelope_blind_index(text, bytea, text, integer) IS 'keyed hash of a value, 16 to 256 bits, for an index to search by';

CREATE FUNCTION @extschema@.envelope_blind_index(tenant bigint, plaintext bytea, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_blind_index_bytea_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_blind_index(bigint, bytea, text, integer) IS 'keyed hash of a value, 16 to 256 bits, for an index to search by';

CREATE FUNCTION @extschema@.envelope_blind_index(tenant uuid, plaintext bytea, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_blind_index_bytea_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_blind_index(uuid, bytea, text, integer) IS 'keyed hash of a value, 16 to 256 bits, for an index to search by';

CREATE FUNCTION @extschema@.envelope_blind_index_of(tenant text, ciphertext bytea, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_blind_index_of_for_text';
COMMENT ON FUNCTION @extschema@.envelope_blind_index_of(text, bytea, text, integer) IS 'the same hash of the value that is sealed';

CREATE FUNCTION @extschema@.envelope_blind_index_of(tenant bigint, ciphertext bytea, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_blind_index_of_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_blind_index_of(bigint, bytea, text, integer) IS 'the same hash of the value that is sealed';

CREATE FUNCTION @extschema@.envelope_blind_index_of(tenant uuid, ciphertext bytea, context text DEFAULT '', bits integer DEFAULT 128) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_blind_index_of_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_blind_index_of(uuid, bytea, text, integer) IS 'the same hash of the value that is sealed';

CREATE FUNCTION @extschema@.envelope_reencrypt(tenant text, ciphertext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_reencrypt_for_text';
COMMENT ON FUNCTION @extschema@.envelope_reencrypt(text, bytea, text) IS 'the same value under the tenant''s active key; the bytes themselves where they are';

CREATE FUNCTION @extschema@.envelope_reencrypt(tenant bigint, ciphertext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_reencrypt_for_bigint';
COMMENT ON FUNCTION @extschema@.envelope_reencrypt(bigint, bytea, text) IS 'the same value under the tenant''s active key; the bytes themselves where they are';

CREATE FUNCTION @extschema@.envelope_reencrypt(tenant uuid, ciphertext bytea, context text DEFAULT '') RETURNS bytea
	LANGUAGE c VOLATILE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_reencrypt_for_uuid';
COMMENT ON FUNCTION @extschema@.envelope_reencrypt(uuid, bytea, text) IS 'the same value under the tenant''s active key; the bytes themselves where they are';

CREATE FUNCTION @extschema@.envelope_is_sealed(bytea) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'envelope_is_sealed';
COMMENT ON FUNCTION @extschema@.envelope_is_sealed(bytea) IS 'is this a sealed value, as far as can be told without a key?';

CREATE FUNCTION @extschema@.envelope_key_id(bytea) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'envelope_key_id';
COMMENT ON FUNCTION @extschema@.envelope_key_id(bytea) IS 'the id of the key that a value is sealed under; null where it is no sealed value';

--
-- KEKs
--

CREATE FUNCTION @extschema@.envelope_create_kek(name text, uri text, options jsonb DEFAULT '{}', is_default boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_create_kek';
COMMENT ON FUNCTION @extschema@.envelope_create_kek(text, text, jsonb, boolean) IS 'make known a key encryption key; the KMS is not asked';

CREATE FUNCTION @extschema@.envelope_alter_kek(name text, options jsonb DEFAULT NULL, is_default boolean DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_alter_kek';
COMMENT ON FUNCTION @extschema@.envelope_alter_kek(text, jsonb, boolean) IS 'change options of a KEK, or make it the default';

CREATE FUNCTION @extschema@.envelope_drop_kek(name text) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_drop_kek';
COMMENT ON FUNCTION @extschema@.envelope_drop_kek(text) IS 'forget a KEK that no tenant and no key uses';

CREATE FUNCTION @extschema@.envelope_check_kek(name text, OUT ok boolean, OUT outcome text, OUT latency_ms double precision, OUT detail text) RETURNS record
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_check_kek';
COMMENT ON FUNCTION @extschema@.envelope_check_kek(text) IS 'have the KMS generate and unwrap a key, which is then forgotten';

--
-- Tenants
--

CREATE FUNCTION @extschema@.envelope_create_tenant(tenant text, kek text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_create_tenant';
COMMENT ON FUNCTION @extschema@.envelope_create_tenant(text, text) IS 'make a tenant and its keys; returns the id of the key that seals';

CREATE FUNCTION @extschema@.envelope_create_tenants(tenants text[], kek text DEFAULT NULL) RETURNS integer
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_create_tenants';
COMMENT ON FUNCTION @extschema@.envelope_create_tenants(text[], text) IS 'make many tenants and their keys, all or none; returns how many';

CREATE FUNCTION @extschema@.envelope_suspend_tenant(tenant text) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_suspend_tenant';
COMMENT ON FUNCTION @extschema@.envelope_suspend_tenant(text) IS 'nothing of the tenant is sealed or opened from the commit on';

CREATE FUNCTION @extschema@.envelope_resume_tenant(tenant text) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_resume_tenant';
COMMENT ON FUNCTION @extschema@.envelope_resume_tenant(text) IS 'end a suspension';

CREATE FUNCTION @extschema@.envelope_evict(tenant text) RETURNS integer
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_evict';
COMMENT ON FUNCTION @extschema@.envelope_evict(text) IS 'wipe the tenant''s keys from this server''s memory; returns how many';

CREATE FUNCTION @extschema@.envelope_evict_all() RETURNS integer
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_evict_all';
COMMENT ON FUNCTION @extschema@.envelope_evict_all() IS 'wipe all keys of this database from this server''s memory; returns how many';

CREATE FUNCTION @extschema@.envelope_warm(tenants text[] DEFAULT NULL) RETURNS integer
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_warm';
COMMENT ON FUNCTION @extschema@.envelope_warm(text[]) IS 'unwrap the keys of these tenants, or of all, ahead of use; returns how many';

CREATE FUNCTION @extschema@.envelope_provision() RETURNS trigger
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_provision';
COMMENT ON FUNCTION @extschema@.envelope_provision() IS 'trigger for the application''s table of tenants: gives each new one its keys; arguments: id column, optional KEK column';

-- The same for tenant ids of type bigint and uuid

CREATE FUNCTION @extschema@.envelope_create_tenant(tenant bigint, kek text DEFAULT NULL) RETURNS bigint
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_create_tenant(tenant::pg_catalog.text, kek);
COMMENT ON FUNCTION @extschema@.envelope_create_tenant(bigint, text) IS 'see envelope_create_tenant(text, text)';

CREATE FUNCTION @extschema@.envelope_suspend_tenant(tenant bigint) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_suspend_tenant(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_suspend_tenant(bigint) IS 'see envelope_suspend_tenant(text)';

CREATE FUNCTION @extschema@.envelope_resume_tenant(tenant bigint) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_resume_tenant(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_resume_tenant(bigint) IS 'see envelope_resume_tenant(text)';

CREATE FUNCTION @extschema@.envelope_evict(tenant bigint) RETURNS integer
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_evict(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_evict(bigint) IS 'see envelope_evict(text)';

CREATE FUNCTION @extschema@.envelope_create_tenant(tenant uuid, kek text DEFAULT NULL) RETURNS bigint
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_create_tenant(tenant::pg_catalog.text, kek);
COMMENT ON FUNCTION @extschema@.envelope_create_tenant(uuid, text) IS 'see envelope_create_tenant(text, text)';

CREATE FUNCTION @extschema@.envelope_suspend_tenant(tenant uuid) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_suspend_tenant(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_suspend_tenant(uuid) IS 'see envelope_suspend_tenant(text)';

CREATE FUNCTION @extschema@.envelope_resume_tenant(tenant uuid) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_resume_tenant(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_resume_tenant(uuid) IS 'see envelope_resume_tenant(text)';

CREATE FUNCTION @extschema@.envelope_evict(tenant uuid) RETURNS integer
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_evict(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_evict(uuid) IS 'see envelope_evict(text)';

--
-- Protected tables
--

CREATE FUNCTION envelope.seal() RETURNS trigger
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_seal';
COMMENT ON FUNCTION envelope.seal() IS 'trigger of protected tables: seals what is written; envelope_protect makes it';

CREATE FUNCTION envelope.call_trigger() RETURNS trigger
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_call_trigger';
COMMENT ON FUNCTION envelope.call_trigger() IS 'calls a row trigger of a protected table, its first argument, with opened rows; envelope_protect puts it there';

CREATE FUNCTION envelope.seal_guard() RETURNS trigger
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_seal_guard';
COMMENT ON FUNCTION envelope.seal_guard() IS 'trigger for a column that the application seals: refuses what is sealed under a key about to be destroyed; argument: the column';

CREATE FUNCTION @extschema@.envelope_protect(rel regclass, tenant_column name, columns name[], searchable name[] DEFAULT '{}', force boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_protect';
COMMENT ON FUNCTION @extschema@.envelope_protect(regclass, name, name[], name[], boolean) IS 'protect columns of a table: what they hold is sealed for the tenant that the tenant column names; force: make searchable even what has few values';

CREATE FUNCTION envelope.open(tenant text, sealed bytea, context text, type anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_open_for_text';
COMMENT ON FUNCTION envelope.open(text, bytea, text, anyelement) IS 'what a protected column holds, as a value of the type of the last argument; statements on protected tables call it';

CREATE FUNCTION envelope.open(tenant bigint, sealed bytea, context text, type anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_open_for_bigint';
COMMENT ON FUNCTION envelope.open(bigint, bytea, text, anyelement) IS 'what a protected column holds, as a value of the type of the last argument; statements on protected tables call it';

CREATE FUNCTION envelope.open(tenant uuid, sealed bytea, context text, type anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_open_for_uuid';
COMMENT ON FUNCTION envelope.open(uuid, bytea, text, anyelement) IS 'what a protected column holds, as a value of the type of the last argument; statements on protected tables call it';

CREATE FUNCTION envelope.open_row(stored anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_open_row';
COMMENT ON FUNCTION envelope.open_row(anyelement) IS 'a row of a protected table with its values opened; statements on protected tables call it';

CREATE FUNCTION envelope.term(tenant text, value anyelement, context text) RETURNS bytea
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_term_for_text';
COMMENT ON FUNCTION envelope.term(text, anyelement, text) IS 'the term by which a value is searched; null for a tenant that does not exist; statements on protected tables call it';

CREATE FUNCTION envelope.term(tenant bigint, value anyelement, context text) RETURNS bytea
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_term_for_bigint';
COMMENT ON FUNCTION envelope.term(bigint, anyelement, text) IS 'the term by which a value is searched; null for a tenant that does not exist; statements on protected tables call it';

CREATE FUNCTION envelope.term(tenant uuid, value anyelement, context text) RETURNS bytea
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'envelope_term_for_uuid';
COMMENT ON FUNCTION envelope.term(uuid, anyelement, text) IS 'the term by which a value is searched; null for a tenant that does not exist; statements on protected tables call it';

CREATE FUNCTION envelope.terms(tenant text, "values" anyarray, context text) RETURNS bytea[]
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_terms_for_text';
COMMENT ON FUNCTION envelope.terms(text, anyarray, text) IS 'the terms by which the values of an array are searched; statements on protected tables call it';

CREATE FUNCTION envelope.terms(tenant bigint, "values" anyarray, context text) RETURNS bytea[]
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_terms_for_bigint';
COMMENT ON FUNCTION envelope.terms(bigint, anyarray, text) IS 'the terms by which the values of an array are searched; statements on protected tables call it';

CREATE FUNCTION envelope.terms(tenant uuid, "values" anyarray, context text) RETURNS bytea[]
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'envelope_terms_for_uuid';
COMMENT ON FUNCTION envelope.terms(uuid, anyarray, text) IS 'the terms by which the values of an array are searched; statements on protected tables call it';

CREATE FUNCTION envelope.terms(tenants text[], "values" anyarray, context text) RETURNS bytea[]
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 400 AS 'MODULE_PATHNAME', 'envelope_terms_of_tenants';
COMMENT ON FUNCTION envelope.terms(text[], anyarray, text) IS 'the terms by which the values of an array are searched, for each tenant of another; statements on protected tables call it';

CREATE FUNCTION envelope.terms(tenants bigint[], "values" anyarray, context text) RETURNS bytea[]
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 400 AS 'MODULE_PATHNAME', 'envelope_terms_of_tenants';
COMMENT ON FUNCTION envelope.terms(bigint[], anyarray, text) IS 'the terms by which the values of an array are searched, for each tenant of another; statements on protected tables call it';

CREATE FUNCTION envelope.terms(tenants uuid[], "values" anyarray, context text) RETURNS bytea[]
	LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 400 AS 'MODULE_PATHNAME', 'envelope_terms_of_tenants';
COMMENT ON FUNCTION envelope.terms(uuid[], anyarray, text) IS 'the terms by which the values of an array are searched, for each tenant of another; statements on protected tables call it';

CREATE FUNCTION envelope.recheck_support(internal) RETURNS internal
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'envelope_recheck_support';
COMMENT ON FUNCTION envelope.recheck_support(internal) IS 'planner support of envelope.recheck';

CREATE FUNCTION envelope.recheck(clause boolean) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE COST 1 SUPPORT envelope.recheck_support
	AS 'MODULE_PATHNAME', 'envelope_recheck';
COMMENT ON FUNCTION envelope.recheck(boolean) IS 'what it is given: a condition that a search by terms leaves to be checked; statements on protected tables call it';

CREATE PROCEDURE @extschema@.envelope_protect_live(rel regclass, tenant_column name, columns name[], searchable name[] DEFAULT '{}', batch_size integer DEFAULT 1000, force boolean DEFAULT false)
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_protect_live';
COMMENT ON PROCEDURE @extschema@.envelope_protect_live(regclass, name, name[], name[], integer, boolean) IS 'protect columns of a table while it is in use; goes on where it was interrupted';

CREATE FUNCTION @extschema@.envelope_unprotect(rel regclass) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_unprotect';
COMMENT ON FUNCTION @extschema@.envelope_unprotect(regclass) IS 'make a protected table an ordinary one again, with its values in plaintext';

--
-- Columns that applications seal themselves, and rotation
--

CREATE FUNCTION @extschema@.envelope_register_column(rel regclass, column_name name,
	tenant_column name, context text DEFAULT NULL, context_expression text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_register_column';
COMMENT ON FUNCTION @extschema@.envelope_register_column(regclass, name, name, text, text) IS 'make known where values are that the application seals itself, so that they are rotated; the context is constant (default empty) or an expression over the row';

CREATE FUNCTION @extschema@.envelope_unregister_column(rel regclass, column_name name) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_unregister_column';
COMMENT ON FUNCTION @extschema@.envelope_unregister_column(regclass, name) IS 'forget a column that was registered';

CREATE FUNCTION @extschema@.rotate_tenant_dek(tenant text, reencrypt boolean DEFAULT true) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rotate_tenant_dek_for_text';
COMMENT ON FUNCTION @extschema@.rotate_tenant_dek(text, boolean) IS 'give a tenant a new data key, and re-encrypt its values, in this transaction; returns the new key''s id';

CREATE PROCEDURE @extschema@.envelope_rotate_tenant(tenant text, batch_size integer DEFAULT 1000, pause interval DEFAULT '0')
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_rotate_tenant_for_text';
COMMENT ON PROCEDURE @extschema@.envelope_rotate_tenant(text, integer, interval) IS 'rotate a tenant''s data key while everything runs on, and prove that the old one is not needed; goes on where it was interrupted';

CREATE FUNCTION @extschema@.rotate_tenant_dek(tenant bigint, reencrypt boolean DEFAULT true) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rotate_tenant_dek_for_bigint';
COMMENT ON FUNCTION @extschema@.rotate_tenant_dek(bigint, boolean) IS 'give a tenant a new data key, and re-encrypt its values, in this transaction; returns the new key''s id';

CREATE PROCEDURE @extschema@.envelope_rotate_tenant(tenant bigint, batch_size integer DEFAULT 1000, pause interval DEFAULT '0')
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_rotate_tenant_for_bigint';
COMMENT ON PROCEDURE @extschema@.envelope_rotate_tenant(bigint, integer, interval) IS 'rotate a tenant''s data key while everything runs on, and prove that the old one is not needed; goes on where it was interrupted';

CREATE FUNCTION @extschema@.rotate_tenant_dek(tenant uuid, reencrypt boolean DEFAULT true) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rotate_tenant_dek_for_uuid';
COMMENT ON FUNCTION @extschema@.rotate_tenant_dek(uuid, boolean) IS 'give a tenant a new data key, and re-encrypt its values, in this transaction; returns the new key''s id';

CREATE PROCEDURE @extschema@.envelope_rotate_tenant(tenant uuid, batch_size integer DEFAULT 1000, pause interval DEFAULT '0')
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_rotate_tenant_for_uuid';
COMMENT ON PROCEDURE @extschema@.envelope_rotate_tenant(uuid, integer, interval) IS 'rotate a tenant''s data key while everything runs on, and prove that the old one is not needed; goes on where it was interrupted';

CREATE PROCEDURE @extschema@.envelope_destroy_retired_keys(tenant text)
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_destroy_retired_keys_for_text';
COMMENT ON PROCEDURE @extschema@.envelope_destroy_retired_keys(text) IS 'destroy the tenant''s retired data keys, after making sure that no value in the database needs them';

CREATE PROCEDURE @extschema@.envelope_destroy_retired_keys(tenant bigint)
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_destroy_retired_keys_for_bigint';
COMMENT ON PROCEDURE @extschema@.envelope_destroy_retired_keys(bigint) IS 'destroy the tenant''s retired data keys, after making sure that no value in the database needs them';

CREATE PROCEDURE @extschema@.envelope_destroy_retired_keys(tenant uuid)
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_destroy_retired_keys_for_uuid';
COMMENT ON PROCEDURE @extschema@.envelope_destroy_retired_keys(uuid) IS 'destroy the tenant''s retired data keys, after making sure that no value in the database needs them';

CREATE FUNCTION @extschema@.envelope_verify_tenant(tenant text) RETURNS TABLE (table_name text, column_name text, key_id bigint, key_state text, "values" bigint, failures bigint, sqlstate text)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_verify_tenant';
COMMENT ON FUNCTION @extschema@.envelope_verify_tenant(text) IS 'open every value of a tenant, and count by column and key';

CREATE FUNCTION @extschema@.envelope_verify_tenant(tenant bigint) RETURNS TABLE (table_name text, column_name text, key_id bigint, key_state text, "values" bigint, failures bigint, sqlstate text)
	LANGUAGE sql VOLATILE BEGIN ATOMIC
	SELECT * FROM @extschema@.envelope_verify_tenant(tenant::pg_catalog.text);
END;
COMMENT ON FUNCTION @extschema@.envelope_verify_tenant(bigint) IS 'see envelope_verify_tenant(text)';

CREATE FUNCTION @extschema@.envelope_verify_tenant(tenant uuid) RETURNS TABLE (table_name text, column_name text, key_id bigint, key_state text, "values" bigint, failures bigint, sqlstate text)
	LANGUAGE sql VOLATILE BEGIN ATOMIC
	SELECT * FROM @extschema@.envelope_verify_tenant(tenant::pg_catalog.text);
END;
COMMENT ON FUNCTION @extschema@.envelope_verify_tenant(uuid) IS 'see envelope_verify_tenant(text)';

CREATE FUNCTION @extschema@.envelope_set_tenant_kek(tenant text, kek text) RETURNS integer
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_set_tenant_kek';
COMMENT ON FUNCTION @extschema@.envelope_set_tenant_kek(text, text) IS 'have all keys of a tenant wrapped by another KEK, those to come too; returns how many were moved';

CREATE FUNCTION @extschema@.envelope_set_tenant_kek(tenant bigint, kek text) RETURNS integer
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_set_tenant_kek(tenant::pg_catalog.text, kek);
COMMENT ON FUNCTION @extschema@.envelope_set_tenant_kek(bigint, text) IS 'see envelope_set_tenant_kek(text, text)';

CREATE FUNCTION @extschema@.envelope_set_tenant_kek(tenant uuid, kek text) RETURNS integer
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_set_tenant_kek(tenant::pg_catalog.text, kek);
COMMENT ON FUNCTION @extschema@.envelope_set_tenant_kek(uuid, text) IS 'see envelope_set_tenant_kek(text, text)';

CREATE PROCEDURE @extschema@.envelope_rotate_kek(kek text, new_kek text DEFAULT NULL)
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_rotate_kek';
COMMENT ON PROCEDURE @extschema@.envelope_rotate_kek(text, text) IS 're-wrap all keys under a KEK under another one, or under its own newest version; goes on where it was interrupted';

CREATE FUNCTION @extschema@.envelope_schedule_destroy(tenant text, after interval DEFAULT '30 days') RETURNS TABLE (table_name text, column_name text, "values" bigint)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_schedule_destroy';
COMMENT ON FUNCTION @extschema@.envelope_schedule_destroy(text, interval) IS 'request that a tenant be destroyed, in 7 to 30 days; it cannot be used until then; returns what will be lost';

CREATE FUNCTION @extschema@.envelope_schedule_destroy(tenant bigint, after interval DEFAULT '30 days') RETURNS TABLE (table_name text, column_name text, "values" bigint)
	LANGUAGE sql VOLATILE BEGIN ATOMIC
	SELECT * FROM @extschema@.envelope_schedule_destroy(tenant::pg_catalog.text, after);
END;
COMMENT ON FUNCTION @extschema@.envelope_schedule_destroy(bigint, interval) IS 'see envelope_schedule_destroy(text, interval)';

CREATE FUNCTION @extschema@.envelope_schedule_destroy(tenant uuid, after interval DEFAULT '30 days') RETURNS TABLE (table_name text, column_name text, "values" bigint)
	LANGUAGE sql VOLATILE BEGIN ATOMIC
	SELECT * FROM @extschema@.envelope_schedule_destroy(tenant::pg_catalog.text, after);
END;
COMMENT ON FUNCTION @extschema@.envelope_schedule_destroy(uuid, interval) IS 'see envelope_schedule_destroy(text, interval)';

CREATE FUNCTION @extschema@.envelope_approve_destroy(tenant text) RETURNS integer
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_approve_destroy';
COMMENT ON FUNCTION @extschema@.envelope_approve_destroy(text) IS 'approve that a tenant be destroyed, which somebody else has requested; returns how many approvals are still wanted';

CREATE FUNCTION @extschema@.envelope_approve_destroy(tenant bigint) RETURNS integer
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_approve_destroy(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_approve_destroy(bigint) IS 'see envelope_approve_destroy(text)';

CREATE FUNCTION @extschema@.envelope_approve_destroy(tenant uuid) RETURNS integer
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_approve_destroy(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_approve_destroy(uuid) IS 'see envelope_approve_destroy(text)';

CREATE FUNCTION @extschema@.envelope_cancel_destroy(tenant text) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_cancel_destroy';
COMMENT ON FUNCTION @extschema@.envelope_cancel_destroy(text) IS 'cancel a request to destroy a tenant, which is then again what it was';

CREATE FUNCTION @extschema@.envelope_cancel_destroy(tenant bigint) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_cancel_destroy(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_cancel_destroy(bigint) IS 'see envelope_cancel_destroy(text)';

CREATE FUNCTION @extschema@.envelope_cancel_destroy(tenant uuid) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_cancel_destroy(tenant::pg_catalog.text);
COMMENT ON FUNCTION @extschema@.envelope_cancel_destroy(uuid) IS 'see envelope_cancel_destroy(text)';

CREATE FUNCTION @extschema@.envelope_set_rotation_interval(tenant text, every interval) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_set_rotation_interval';
COMMENT ON FUNCTION @extschema@.envelope_set_rotation_interval(text, interval) IS 'how often maintenance rotates a tenants data key, or (null) that of tenants without an interval of their own; null: never';

CREATE FUNCTION @extschema@.envelope_set_rotation_interval(tenant bigint, every interval) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_set_rotation_interval(tenant::pg_catalog.text, every);
COMMENT ON FUNCTION @extschema@.envelope_set_rotation_interval(bigint, interval) IS 'see envelope_set_rotation_interval(text, interval)';

CREATE FUNCTION @extschema@.envelope_set_rotation_interval(tenant uuid, every interval) RETURNS void
	LANGUAGE sql VOLATILE RETURN @extschema@.envelope_set_rotation_interval(tenant::pg_catalog.text, every);
COMMENT ON FUNCTION @extschema@.envelope_set_rotation_interval(uuid, interval) IS 'see envelope_set_rotation_interval(text, interval)';

CREATE FUNCTION @extschema@.envelope_set_kek_rotation_interval(kek text, every interval) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'envelope_set_kek_rotation_interval';
COMMENT ON FUNCTION @extschema@.envelope_set_kek_rotation_interval(text, interval) IS 'how often maintenance re-wraps the keys under a KEK; null: never';

CREATE PROCEDURE @extschema@.envelope_run_maintenance(batch_size integer DEFAULT 1000, pause interval DEFAULT '0')
	LANGUAGE c AS 'MODULE_PATHNAME', 'envelope_run_maintenance';
COMMENT ON PROCEDURE @extschema@.envelope_run_maintenance(integer, interval) IS 'do what is due: rotations, destructions; for a timer to call';

--
-- Views.  The functions below them show what is of the current database.
--

CREATE FUNCTION envelope.list_cache(OUT database oid, OUT tenant_id text, OUT key_id bigint,
	OUT purpose text, OUT state text, OUT age interval, OUT expires_in interval,
	OUT hits bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT ROWS 500 AS 'MODULE_PATHNAME', 'envelope_cache';
COMMENT ON FUNCTION envelope.list_cache() IS 'the keys in memory; of other databases only for members of pg_monitor';

CREATE FUNCTION envelope.get_cache_stats(OUT size integer, OUT used integer, OUT hits bigint,
	OUT misses bigint, OUT evictions bigint, OUT evictions_unexpired bigint) RETURNS record
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_cache_stats';
COMMENT ON FUNCTION envelope.get_cache_stats() IS 'counters of the cache since the server started';

CREATE FUNCTION envelope.list_kms_stats(OUT kek text, OUT operation text, OUT calls bigint,
	OUT ok bigint, OUT denied bigint, OUT unreachable bigint, OUT corrupt bigint,
	OUT misconfigured bigint, OUT retries bigint, OUT throttled bigint, OUT refused bigint,
	OUT waits bigint, OUT p50_ms double precision, OUT p99_ms double precision)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'envelope_kms_stats';
COMMENT ON FUNCTION envelope.list_kms_stats() IS 'KMS calls by KEK and operation since the server started';

CREATE FUNCTION envelope.list_kek_outcomes(OUT kek text, OUT outcome text, OUT since timestamptz,
	OUT detail text, OUT refused_until timestamptz, OUT credential_expires timestamptz,
	OUT rights text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'envelope_kek_outcomes';
COMMENT ON FUNCTION envelope.list_kek_outcomes() IS 'how the last KMS call of each KEK ended';

CREATE FUNCTION envelope.get_server(OUT preloaded boolean, OUT memory_locked boolean,
	OUT worker_pid integer, OUT requests integer) RETURNS record
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_server';
COMMENT ON FUNCTION envelope.get_server() IS 'whether the module is preloaded and its worker runs, and how many requests are queued or running';

CREATE VIEW envelope.cache AS
	SELECT d.datname AS database, c.tenant_id, c.key_id, c.purpose, c.state, c.age,
		c.expires_in, c.hits
	FROM envelope.list_cache() c
	LEFT JOIN pg_catalog.pg_database d ON d.oid = c.database;
COMMENT ON VIEW envelope.cache IS 'data keys in memory now; of other databases only for members of pg_monitor';

CREATE VIEW envelope.cache_stats AS SELECT * FROM envelope.get_cache_stats();
COMMENT ON VIEW envelope.cache_stats IS 'counters of the cache of data keys since the server started';

CREATE VIEW envelope.kms_stats AS SELECT * FROM envelope.list_kms_stats();
COMMENT ON VIEW envelope.kms_stats IS 'KMS calls by KEK and operation since the server started';

CREATE FUNCTION envelope.list_protected_columns(OUT relation regclass, OUT column_name name,
	OUT tenant_column name, OUT sealed_column name, OUT term_column name, OUT context text,
	OUT live boolean, OUT old_files boolean) RETURNS SETOF record
	LANGUAGE c STABLE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'envelope_list_protected_columns';
COMMENT ON FUNCTION envelope.list_protected_columns() IS 'the columns that are protected, as the triggers of their tables say';

CREATE VIEW envelope.protected_columns AS
	SELECT p.relation, p.column_name, p.tenant_column, p.sealed_column, p.term_column, p.context,
		p.term_column IS NOT NULL AS searchable,
		EXISTS (SELECT FROM pg_catalog.pg_index i
			JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = p.term_column
			WHERE i.indrelid = p.relation AND i.indisvalid
				AND a.attnum = ANY (i.indkey::pg_catalog.int2[])) AS indexed,
		p.live
	FROM envelope.list_protected_columns() p;
COMMENT ON VIEW envelope.protected_columns IS 'protected columns: where each is sealed, for which tenant column, and whether it can be searched';

CREATE VIEW envelope.protect_progress AS
	SELECT c.oid::pg_catalog.regclass AS relation, p.phase, p.rows_done,
		GREATEST(p.rows_estimated, p.rows_done) AS rows_estimated, p.started_at,
		p.rows_done / NULLIF(EXTRACT(epoch FROM p.progress_at - p.phase_at), 0) AS rows_per_second,
		CASE WHEN r.running AND p.rows_done > 0 AND p.rows_estimated > p.rows_done THEN
			p.progress_at + (p.progress_at - p.phase_at) *
				((p.rows_estimated - p.rows_done)::double precision / p.rows_done) END AS eta,
		CASE WHEN r.running THEN p.waits_for END AS waits_for,
		CASE WHEN r.running THEN p.pid END AS pid, r.running
	FROM envelope.live_protections p
	JOIN pg_catalog.pg_class c ON c.oid = p.relid
	CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l
		WHERE l.pid = p.pid AND l.locktype = 'object' AND l.granted
			AND l.classid = 'envelope.live_protections'::pg_catalog.regclass) AS running) r
	WHERE r.running OR EXISTS (SELECT FROM envelope.list_protected_columns() l
		WHERE l.relation = p.relid AND l.live);
COMMENT ON VIEW envelope.protect_progress IS 'tables that are being protected live: how far the phase is in which they are, whom it waits for, and whether anybody works on it';

CREATE VIEW envelope.status AS
	SELECT k.name AS kek, k.uri, k.is_default, o.outcome, o.since, o.detail,
		o.refused_until, o.credential_expires,
		(SELECT pg_catalog.count(*) FROM envelope.tenants t
			WHERE t.kek = k.name AND t.state <> 'destroyed') AS tenants,
		(SELECT pg_catalog.jsonb_object_agg(v.version, v.keys)
			FROM (SELECT COALESCE(d.kek_version, '') AS version, pg_catalog.count(*) AS keys
				FROM envelope.tenant_keys d
				WHERE d.kek = k.name AND d.state <> 'destroyed'
				GROUP BY 1) v) AS keys_by_version
	FROM envelope.keks k
	LEFT JOIN envelope.list_kek_outcomes() o ON o.kek = k.name;
COMMENT ON VIEW envelope.status IS 'KEKs: how the last KMS call ended and since when calls end so, until when calls are refused, when the credential expires, and how many keys each version has wrapped';

CREATE VIEW envelope.rotation_progress AS
	SELECT r.rotation_id, r.kind, r.tenant_id, r.kek, r.phase, p.relation,
		p.rows_seen, GREATEST(p.rows_estimated, p.rows_seen) AS rows_estimated,
		p.rows_reencrypted, r.started_at,
		p.rows_seen / NULLIF(EXTRACT(epoch FROM p.progress_at - p.phase_at), 0) AS rows_per_second,
		CASE WHEN p.rows_seen > 0 AND p.rows_estimated > p.rows_seen THEN
			p.progress_at + (p.progress_at - p.phase_at) *
				((p.rows_estimated - p.rows_seen)::double precision / p.rows_seen) END AS eta,
		p.waits_for, p.pid,
		EXISTS (SELECT FROM pg_catalog.pg_locks l
			WHERE l.pid = p.pid AND l.locktype = 'object' AND l.granted
				AND l.classid IN ('envelope.tenant_keys'::pg_catalog.regclass, 'envelope.keks'::pg_catalog.regclass)) AS running
	FROM envelope.rotations r
	JOIN envelope.rotations p ON p.rotation_id = COALESCE(r.pass, r.rotation_id)
	WHERE r.finished_at IS NULL;
COMMENT ON VIEW envelope.rotation_progress IS 'rotations that are not finished: how far they are, whom they wait for, and whether anybody works on them';

--
-- Privileges
--

CREATE FUNCTION envelope.privileges(OUT level text, OUT privileges text, OUT object text)
	RETURNS SETOF record LANGUAGE sql STABLE
BEGIN ATOMIC
	-- The functions' schema may have been renamed since.
	SELECT p.level, p.privileges, CASE WHEN starts_with(p.object, 'FUNCTION @extschema@.')
		THEN 'FUNCTION ' || quote_ident(n.nspname) || substr(p.object, length('FUNCTION @extschema@.'))
		ELSE p.object END
	FROM pg_extension e
	JOIN pg_namespace n ON n.oid = e.extnamespace AND e.extname = 'envelope'
	CROSS JOIN (VALUES
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt(text, text, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt(bigint, text, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt(uuid, text, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt(text, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt(bigint, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt(uuid, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_decrypt(text, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_decrypt(bigint, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_decrypt(uuid, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_decrypt_bytea(text, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_decrypt_bytea(bigint, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_decrypt_bytea(uuid, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt_deterministic(text, text, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt_deterministic(bigint, text, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt_deterministic(uuid, text, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt_deterministic(text, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt_deterministic(bigint, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_encrypt_deterministic(uuid, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index(text, text, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index(bigint, text, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index(uuid, text, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index(text, bytea, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index(bigint, bytea, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index(uuid, bytea, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index_of(text, bytea, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index_of(bigint, bytea, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_blind_index_of(uuid, bytea, text, integer)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_reencrypt(text, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_reencrypt(bigint, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION @extschema@.envelope_reencrypt(uuid, bytea, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.open(text, bytea, text, anyelement)'),
		('use', 'EXECUTE', 'FUNCTION envelope.term(text, anyelement, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.terms(text, anyarray, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.terms(text[], anyarray, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.open(bigint, bytea, text, anyelement)'),
		('use', 'EXECUTE', 'FUNCTION envelope.term(bigint, anyelement, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.terms(bigint, anyarray, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.terms(bigint[], anyarray, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.open(uuid, bytea, text, anyelement)'),
		('use', 'EXECUTE', 'FUNCTION envelope.term(uuid, anyelement, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.terms(uuid, anyarray, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.terms(uuid[], anyarray, text)'),
		('use', 'EXECUTE', 'FUNCTION envelope.open_row(anyelement)'),
		('use', 'EXECUTE', 'FUNCTION envelope.recheck(boolean)'),
		('operate', 'USAGE', 'SCHEMA envelope'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_check_kek(text)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_evict(text)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_evict_all()'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_warm(text[])'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_evict(bigint)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_evict(uuid)'),
		('operate', 'EXECUTE', 'FUNCTION envelope.list_cache()'),
		('operate', 'EXECUTE', 'FUNCTION envelope.get_cache_stats()'),
		('operate', 'EXECUTE', 'FUNCTION envelope.list_kms_stats()'),
		('operate', 'EXECUTE', 'FUNCTION envelope.list_kek_outcomes()'),
		('operate', 'EXECUTE', 'FUNCTION envelope.get_server()'),
		('operate', 'SELECT', 'TABLE envelope.cache'),
		('operate', 'SELECT', 'TABLE envelope.cache_stats'),
		('operate', 'SELECT', 'TABLE envelope.kms_stats'),
		('operate', 'SELECT', 'TABLE envelope.status'),
		('operate', 'EXECUTE', 'FUNCTION envelope.list_protected_columns()'),
		('operate', 'SELECT', 'TABLE envelope.protected_columns'),
		('operate', 'SELECT', 'TABLE envelope.protect_progress'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.rotate_tenant_dek(text, boolean)'),
		('operate', 'EXECUTE', 'PROCEDURE @extschema@.envelope_rotate_tenant(text, integer, interval)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.rotate_tenant_dek(bigint, boolean)'),
		('operate', 'EXECUTE', 'PROCEDURE @extschema@.envelope_rotate_tenant(bigint, integer, interval)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.rotate_tenant_dek(uuid, boolean)'),
		('operate', 'EXECUTE', 'PROCEDURE @extschema@.envelope_rotate_tenant(uuid, integer, interval)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_verify_tenant(text)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_verify_tenant(bigint)'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_verify_tenant(uuid)'),
		('operate', 'EXECUTE', 'PROCEDURE @extschema@.envelope_run_maintenance(integer, interval)'),
		('operate', 'SELECT', 'TABLE envelope.audit_log'),
		('operate', 'SELECT', 'TABLE envelope.rotation_intervals'),
		('operate', 'SELECT', 'TABLE envelope.destroy_requests'),
		('operate', 'SELECT', 'TABLE envelope.rotations'),
		('operate', 'SELECT', 'TABLE envelope.live_protections'),
		('operate', 'SELECT', 'TABLE envelope.rotation_progress'),
		('operate', 'SELECT', 'TABLE envelope.registered_columns'),
		('operate', 'EXECUTE', 'FUNCTION @extschema@.envelope_doctor()'),
		('operate', 'EXECUTE', 'FUNCTION envelope.privileges()'),
		('admin', 'USAGE', 'SCHEMA envelope'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_create_kek(text, text, jsonb, boolean)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_alter_kek(text, jsonb, boolean)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_drop_kek(text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_create_tenant(text, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_create_tenants(text[], text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_suspend_tenant(text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_resume_tenant(text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_provision()'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_create_tenant(bigint, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_suspend_tenant(bigint)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_resume_tenant(bigint)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_create_tenant(uuid, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_suspend_tenant(uuid)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_resume_tenant(uuid)'),
		('admin', 'EXECUTE', 'FUNCTION envelope.seal()'),
		('admin', 'EXECUTE', 'FUNCTION envelope.call_trigger()'),
		('admin', 'EXECUTE', 'FUNCTION envelope.seal_guard()'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_protect(regclass, name, name[], name[], boolean)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_register_column(regclass, name, name, text, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_unregister_column(regclass, name)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_unprotect(regclass)'),
		('admin', 'EXECUTE', 'PROCEDURE @extschema@.envelope_protect_live(regclass, name, name[], name[], integer, boolean)'),
		('admin', 'EXECUTE', 'PROCEDURE @extschema@.envelope_destroy_retired_keys(text)'),
		('admin', 'EXECUTE', 'PROCEDURE @extschema@.envelope_destroy_retired_keys(bigint)'),
		('admin', 'EXECUTE', 'PROCEDURE @extschema@.envelope_destroy_retired_keys(uuid)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_tenant_kek(text, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_tenant_kek(bigint, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_tenant_kek(uuid, text)'),
		('admin', 'EXECUTE', 'PROCEDURE @extschema@.envelope_rotate_kek(text, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_schedule_destroy(text, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_schedule_destroy(bigint, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_schedule_destroy(uuid, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_approve_destroy(text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_approve_destroy(bigint)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_approve_destroy(uuid)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_cancel_destroy(text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_cancel_destroy(bigint)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_cancel_destroy(uuid)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_rotation_interval(text, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_rotation_interval(bigint, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_rotation_interval(uuid, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_set_kek_rotation_interval(text, interval)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_grant(name, text)'),
		('admin', 'EXECUTE', 'FUNCTION @extschema@.envelope_revoke(name, text)'),
		('admin', 'SELECT, INSERT', 'TABLE envelope.keks'),
		('admin', 'SELECT, INSERT', 'TABLE envelope.tenants'),
		('admin', 'SELECT, INSERT', 'TABLE envelope.tenant_keys')) p (level, privileges, object);
END;
COMMENT ON FUNCTION envelope.privileges() IS 'what envelope_grant grants at each level';

CREATE FUNCTION @extschema@.envelope_grant(role name, level text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_grant';
COMMENT ON FUNCTION @extschema@.envelope_grant(name, text) IS 'grant a role what belongs to a level: use, operate or admin';

CREATE FUNCTION @extschema@.envelope_revoke(role name, level text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'envelope_revoke';
COMMENT ON FUNCTION @extschema@.envelope_revoke(name, text) IS 'take from a role what belongs to a level: use, operate or admin';

--
-- Doctor
--

CREATE FUNCTION @extschema@.envelope_doctor(OUT severity text, OUT subject text,
	OUT finding text, OUT hint text)
	RETURNS SETOF record LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT 'error', 'server', 'the module is not preloaded',
		'add "envelope" to shared_preload_libraries and restart the server'
	FROM envelope.get_server() s WHERE NOT s.preloaded
	UNION ALL
	SELECT 'error', 'worker', 'the KMS worker is not running',
		'raise max_worker_processes and restart the server; the server log says more'
	FROM envelope.get_server() s WHERE s.preloaded AND s.worker_pid IS NULL
	UNION ALL
	SELECT 'warning', 'memory', 'keys in memory could be swapped out',
		'raise the limit on locked memory (RLIMIT_MEMLOCK), or encrypt the swap space'
	FROM envelope.get_server() s WHERE s.preloaded AND NOT s.memory_locked
	UNION ALL
	SELECT 'warning', 'cache',
		c.evictions_unexpired || ' keys that were still good had to make room',
		'raise envelope.cache_size'
	FROM envelope.get_server() s
	CROSS JOIN LATERAL (SELECT (envelope.get_cache_stats()).* WHERE s.preloaded) c
	WHERE c.evictions_unexpired > 0
	UNION ALL
	SELECT CASE o.outcome WHEN 'unreachable' THEN 'warning' ELSE 'error' END,
		'KEK ' || o.kek, o.outcome || ' since ' || o.since || COALESCE(': ' || o.detail, ''),
		'see SELECT * FROM envelope_check_kek(' || quote_literal(o.kek) || ')'
	FROM envelope.list_kek_outcomes() o
	WHERE o.outcome <> 'ok' AND EXISTS (SELECT FROM envelope.keks k WHERE k.name = o.kek)
	UNION ALL
	SELECT 'warning', 'KEK ' || o.kek, o.rights,
		'take from the server''s credential what it does not need, then see SELECT * FROM envelope_check_kek(' || quote_literal(o.kek) || ')'
	FROM envelope.list_kek_outcomes() o
	WHERE o.rights IS NOT NULL AND EXISTS (SELECT FROM envelope.keks k WHERE k.name = o.kek)
	UNION ALL
	SELECT 'notice', 'KEKs', 'there is no default KEK',
		'tenants can be made only with a KEK named'
	WHERE NOT EXISTS (SELECT FROM envelope.keks WHERE is_default)
	UNION ALL
	SELECT 'error', 'tenant ' || t.tenant_id, 'it has no active ' || p.purpose || ' key',
		'restore envelope.tenant_keys from the backup that the tenant is from'
	FROM envelope.tenants t CROSS JOIN (VALUES ('data'), ('index')) p (purpose)
	WHERE t.state <> 'destroyed' AND NOT EXISTS (
		SELECT FROM envelope.tenant_keys k
		WHERE k.tenant_id = t.tenant_id AND k.purpose = p.purpose AND k.state = 'active')
	UNION ALL
	SELECT 'error', 'key ' || k.key_id, 'its tenant ' || k.tenant_id || ' does not exist',
		'restore envelope.tenants from the backup that the key is from'
	FROM envelope.tenant_keys k
	WHERE NOT EXISTS (SELECT FROM envelope.tenants t WHERE t.tenant_id = k.tenant_id)
	UNION ALL
	SELECT DISTINCT 'error', 'KEK ' || k.kek, 'keys are wrapped under it, but it does not exist',
		'restore envelope.keks from the backup that the keys are from'
	FROM envelope.tenant_keys k
	WHERE NOT EXISTS (SELECT FROM envelope.keks e WHERE e.name = k.kek)
		AND k.kek IS NOT NULL
	UNION ALL
	SELECT 'error', 'table envelope.' || g.name,
		'its trigger ' || g.trigger || ' is missing or not ENABLE ALWAYS',
		'ALTER TABLE envelope.' || g.name || ' ENABLE ALWAYS TRIGGER ' || g.trigger
	FROM (SELECT n.name, t.trigger
		FROM (VALUES ('keks'), ('tenants'), ('tenant_keys'), ('audit_log')) n (name)
		CROSS JOIN (VALUES ('guard'), ('guard_truncate')) t (trigger)) g
	WHERE NOT EXISTS (
		SELECT FROM pg_trigger t
		JOIN pg_class c ON c.oid = t.tgrelid
		JOIN pg_namespace s ON s.oid = c.relnamespace
		WHERE s.nspname = 'envelope' AND c.relname = g.name
			AND t.tgname = g.trigger AND t.tgenabled = 'A')
	UNION ALL
	SELECT CASE WHEN to_regclass(c.table_name) IS NULL THEN 'notice' ELSE 'error' END,
		'table ' || c.table_name, 'the guard of its registered column ' || quote_ident(c.column_name) || ' has gone',
		CASE WHEN to_regclass(c.table_name) IS NULL THEN 'delete its row from envelope.registered_columns'
			ELSE 'register the column again, or unregister it' END
	FROM envelope.registered_columns c
	WHERE NOT EXISTS (
		SELECT FROM pg_trigger t
		WHERE t.tgfoid = 'envelope.seal_guard'::regproc
			AND split_part(encode(t.tgargs, 'escape'), '\000', 1) = c.registration::text)
	UNION ALL
	SELECT 'error', 'table ' || t.tgrelid::regclass,
		'its trigger ' || quote_ident(t.tgname) || ' is not ENABLE ALWAYS',
		'ALTER TABLE ' || t.tgrelid::regclass || ' ENABLE ALWAYS TRIGGER ' || quote_ident(t.tgname)
	FROM pg_trigger t
	WHERE t.tgfoid = 'envelope.seal_guard'::regproc AND t.tgenabled <> 'A'
	UNION ALL
	SELECT 'warning', 'tenant ' || r.tenant_id, 'a rotation of its key was not finished',
		'CALL envelope_rotate_tenant(' || quote_literal(r.tenant_id) || ')'
	FROM envelope.rotations r
	WHERE r.kind = 'dek' AND r.finished_at IS NULL AND NOT EXISTS (
		SELECT FROM pg_stat_activity a WHERE a.pid = r.pid AND a.state = 'active')
	UNION ALL
	SELECT 'warning', 'key ' || k.key_id, 'its destruction was not finished: nothing can be stored under it',
		'CALL envelope_destroy_retired_keys(' || quote_literal(k.tenant_id) || ')'
	FROM envelope.tenant_keys k
	WHERE k.state = 'scheduled' AND NOT EXISTS (
		SELECT FROM envelope.rotations r JOIN pg_stat_activity a ON a.pid = r.pid AND a.state = 'active'
		WHERE r.kind = 'death' AND r.finished_at IS NULL)
	UNION ALL
	SELECT 'error', 'function ' || p.oid::regprocedure, 'everybody may execute it',
		'REVOKE EXECUTE ON ROUTINE ' || p.oid::regprocedure || ' FROM PUBLIC'
	FROM pg_extension e
	JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	JOIN pg_proc p ON p.oid = d.objid
	CROSS JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
	WHERE e.extname = 'envelope' AND a.grantee = 0
		AND p.proname NOT IN ('envelope_is_sealed', 'envelope_key_id')
	UNION ALL
	SELECT 'warning', pg_describe_object(o.classid, o.objid, 0),
		'it stores what ' || string_agg(DISTINCT o.proname, ', ') || ' opens',
		'sealed values should not be stored open; a view does not store them'
	FROM (
		SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass END AS classid,
			COALESCE(r.ev_class, d.objid) AS objid, p.proname
		FROM pg_proc p
		JOIN pg_depend x ON x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'e'
		JOIN pg_extension e ON e.oid = x.refobjid AND e.extname = 'envelope'
		JOIN pg_depend d ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
		LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
		LEFT JOIN pg_class c ON c.oid = COALESCE(r.ev_class,
			CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid END)
		WHERE p.proname IN ('envelope_decrypt', 'envelope_decrypt_bytea', 'open', 'open_row')
			AND (d.classid = 'pg_statistic_ext'::regclass OR c.relkind IN ('i', 'm'))) o
	GROUP BY o.classid, o.objid
	UNION ALL
	SELECT 'error', 'table ' || c.conrelid::regclass, 'the trigger that seals column ' || quote_ident(a.attname) || ' is missing',
		'its values read as null; create trigger zzz_envelope_seal again as in a dump of the table'
	FROM pg_constraint c
	JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
	WHERE c.contype = 'c' AND c.conname LIKE '%\_\_plain'
		AND c.conname = left(a.attname, 56) || '__plain' AND array_length(c.conkey, 1) = 1
		AND NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
			JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE t.tgrelid = c.conrelid AND n.nspname = 'envelope' AND p.proname = 'seal')
	UNION ALL
	SELECT 'error', 'table ' || c.oid::regclass, 'trigger ' || quote_ident(t.tgname) || ' does not fit the table',
		'call the columns again what its arguments call them'
	FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid AND NOT c.relispartition
	WHERE t.tgfoid = 'envelope.seal'::regproc
		AND NOT EXISTS (SELECT FROM envelope.list_protected_columns() p WHERE p.relation = c.oid)
	UNION ALL
	SELECT 'error', 'table ' || t.tgrelid::regclass, 'trigger ' || t.tgname || ' is not ENABLE ALWAYS',
		'ALTER TABLE ' || t.tgrelid::regclass || ' ENABLE ALWAYS TRIGGER ' || quote_ident(t.tgname)
	FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
	JOIN pg_namespace n ON n.oid = p.pronamespace
	WHERE n.nspname = 'envelope' AND p.proname = 'seal' AND t.tgenabled <> 'A'
	UNION ALL
	SELECT 'error', 'table ' || t.tgrelid::regclass, 'trigger ' || quote_ident(t.tgname) || ' sees what is stored',
		'drop it and create it again in a server that preloads the module'
	FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
	JOIN pg_namespace n ON n.oid = p.pronamespace
	WHERE NOT t.tgisinternal AND t.tgtype::integer & 1 = 1
		AND NOT (n.nspname = 'envelope' AND p.proname IN ('seal', 'seal_guard', 'call_trigger'))
		AND t.tgrelid IN (SELECT s.tgrelid FROM pg_trigger s JOIN pg_proc f ON f.oid = s.tgfoid
			JOIN pg_namespace fn ON fn.oid = f.pronamespace
			WHERE fn.nspname = 'envelope' AND f.proname = 'seal')
	UNION ALL
	SELECT 'warning', 'table ' || c.relation, 'searchable column ' || quote_ident(c.column_name) || ' has no valid index',
		'create an index on (' || quote_ident(c.tenant_column) || ', ' || quote_ident(c.column_name) || ')'
	FROM envelope.protected_columns c WHERE c.searchable AND NOT c.indexed
	UNION ALL
	SELECT 'notice', 'table ' || c.relation,
		'the terms of searchable column ' || quote_ident(c.column_name) || ' tell its few values apart',
		'protect it without making it searchable, unless it has to be looked up'
	FROM envelope.protected_columns c
	JOIN pg_attribute a ON a.attrelid = c.relation AND a.attname = c.column_name
	JOIN pg_type t ON t.oid = a.atttypid
	LEFT JOIN pg_type d ON d.oid = t.typbasetype AND t.typtype = 'd'
	WHERE c.searchable
		AND (COALESCE(d.typtype, t.typtype) = 'e' OR COALESCE(d.oid, t.oid) = 'pg_catalog.bool'::regtype)
	UNION ALL
	SELECT 'notice', 'table ' || c.relation,
		'the terms of searchable column ' || quote_ident(c.column_name) || ' give values away: of a tenant there are about '
			|| round(v.n_values) || ', one of them in ' || round((100 * v.most)::numeric, 1) || ' % of its rows',
		'protect it without making it searchable, unless it has to be looked up'
	FROM envelope.list_protected_columns() c
	JOIN pg_class r ON r.oid = c.relation
	CROSS JOIN LATERAL (
		SELECT GREATEST(1, CASE WHEN t.n_distinct < 0 THEN -t.n_distinct * r.reltuples ELSE t.n_distinct END) AS n_tenants,
			COALESCE(t.most_common_freqs[1], 1 / GREATEST(1, CASE WHEN t.n_distinct < 0 THEN -t.n_distinct * r.reltuples ELSE t.n_distinct END)) AS share,
			CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * r.reltuples ELSE s.n_distinct END AS n_terms,
			COALESCE(s.most_common_freqs[1], 0) AS frequency
		FROM pg_stats s
		JOIN pg_stats t ON t.schemaname = s.schemaname AND t.tablename = s.tablename
			AND t.inherited = s.inherited AND t.attname = c.tenant_column
		JOIN pg_namespace n ON n.oid = r.relnamespace
		WHERE s.schemaname = n.nspname AND s.tablename = r.relname AND s.attname = c.term_column
			AND s.inherited = (r.relkind = 'p')) f
	CROSS JOIN LATERAL (SELECT f.n_terms / f.n_tenants AS n_values, LEAST(1, f.frequency / f.share) AS most) v
	WHERE r.reltuples / f.n_tenants >= 100 AND f.n_terms > 0
		AND (v.n_values < 100 AND f.n_terms * 10 <= r.reltuples OR v.most >= 0.05)
	UNION ALL
	SELECT DISTINCT 'notice', 'table ' || c.relation, 'it is being protected live',
		'CALL envelope_protect_live again to finish it, or envelope_unprotect to go back'
	FROM envelope.list_protected_columns() c WHERE c.live
	UNION ALL
	SELECT DISTINCT 'warning', 'table ' || c.relation, 'its files may hold dead rows in plaintext',
		'rewrite it: VACUUM FULL ' || c.relation || ', or pg_repack'
	FROM envelope.list_protected_columns() c WHERE c.old_files
	UNION ALL
	SELECT DISTINCT 'warning', 'table ' || t.tgrelid::regclass,
		'the file of ' || c.oid::regclass || ' may hold samples of its columns in plaintext',
		'VACUUM FULL ' || c.oid::regclass || ' when no older transaction runs'
	FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
	JOIN pg_namespace n ON n.oid = p.pronamespace
	CROSS JOIN LATERAL regexp_matches(encode(t.tgargs, 'escape'), '\\000statistics\\000([0-9.]+)(?=\\000)', 'g') f
	JOIN pg_class c ON c.oid IN ('pg_statistic'::regclass, 'pg_statistic_ext_data'::regclass)
	JOIN pg_database d ON d.datname = current_database()
	JOIN pg_control_system() s ON concat_ws('.', s.system_identifier, d.oid, c.relfilenode) = f[1]
	WHERE n.nspname = 'envelope' AND p.proname = 'seal'
		AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = t.tgrelid)
	UNION ALL
	SELECT DISTINCT 'warning', 'materialized view ' || v.oid::regclass,
		'it holds column ' || quote_ident(c.column_name) || ' of table ' || c.relation || ' in plaintext',
		'a view does not store what it shows'
	FROM envelope.protected_columns c
	JOIN pg_attribute a ON a.attrelid = c.relation AND a.attname = c.column_name
	JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
		AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
	JOIN pg_rewrite r ON r.oid = d.objid
	JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'm'
	UNION ALL
	SELECT 'notice', 'setting ' || s.name, 'the server log may hold plaintext of ' || s.where_from,
		CASE s.where_from WHEN 'parameters' THEN 'set it to 0'
			ELSE 'keep plaintext out of SQL text, by parameters, or turn it off' END
	FROM (
		SELECT name, setting, CASE WHEN name LIKE 'log_parameter%' THEN 'parameters' ELSE 'statements' END AS where_from,
			bool_or(name = 'log_statement' AND setting IN ('mod', 'all')
				OR name LIKE 'log_min_duration%' AND setting <> '-1') OVER () AS statements_logged
		FROM pg_settings
		WHERE name IN ('log_statement', 'log_min_duration_statement', 'log_min_duration_sample', 'auto_explain.log_min_duration',
			'log_parameter_max_length', 'log_parameter_max_length_on_error')) s
	WHERE s.name = 'log_statement' AND s.setting IN ('mod', 'all')
		OR s.name LIKE '%log_min_duration%' AND s.setting <> '-1'
		OR s.name = 'log_parameter_max_length' AND s.setting <> '0' AND s.statements_logged
		OR s.name = 'log_parameter_max_length_on_error' AND s.setting <> '0';
END;
COMMENT ON FUNCTION @extschema@.envelope_doctor() IS 'what is wrong or unwise here; no rows when all is well';

--
-- Nobody but the owner may do anything that is not granted, whatever default
-- privileges the database has; the two functions that need no key are for all.
--

DO $$
DECLARE
	object record;
BEGIN
	FOR object IN
		SELECT CASE d.classid
				WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN 'ROUTINE ' || d.objid::pg_catalog.regprocedure
				WHEN 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN 'SCHEMA ' || d.objid::pg_catalog.regnamespace
				ELSE 'TABLE ' || d.objid::pg_catalog.regclass END AS name,
			CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END AS grantee
		FROM pg_catalog.pg_extension e
		JOIN pg_catalog.pg_depend d ON d.refobjid = e.oid AND d.deptype = 'e'
			AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
		LEFT JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
		LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.objid AND d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
		LEFT JOIN pg_catalog.pg_class c ON c.oid = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
			AND c.relkind IN ('r', 'v', 'S')
		CROSS JOIN LATERAL pg_catalog.aclexplode(CASE
			WHEN p.oid IS NOT NULL THEN COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))
			WHEN n.oid IS NOT NULL THEN n.nspacl
			ELSE c.relacl END) a
		WHERE e.extname = 'envelope'
			AND a.grantee <> COALESCE(p.proowner, n.nspowner, c.relowner)
		GROUP BY 1, 2
	LOOP
		EXECUTE 'REVOKE ALL ON ' || object.name || ' FROM ' || object.grantee;
	END LOOP;
END;
$$ LANGUAGE plpgsql;

GRANT EXECUTE ON FUNCTION @extschema@.envelope_is_sealed(bytea) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.envelope_key_id(bytea) TO PUBLIC;
