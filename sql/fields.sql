-- Values: every function, for every type of tenant and plaintext, and what any
-- bytes, any tenant and any context do to it.

-- Round trips, and who may be called how
SELECT envelope_decrypt('t1', envelope_encrypt('t1', 'hello', 'c'), 'c') AS text,
	envelope_decrypt(42, envelope_encrypt(42, 'hello', 'c'), 'c') AS integer_literal,
	envelope_decrypt(42::bigint, envelope_encrypt('42', 'hello', 'c'), 'c') AS one_tenant,
	envelope_decrypt('00000000-0000-0000-0000-00000000002a',
		envelope_encrypt('00000000-0000-0000-0000-00000000002A'::uuid, 'hello')) AS one_uuid;
SELECT envelope_decrypt_bytea('t1', envelope_encrypt('t1', '\x00ff'::bytea)) AS bytea,
	envelope_decrypt_bytea(42, envelope_encrypt(42, '\x00ff'::bytea)) AS bytea_bigint,
	envelope_decrypt_bytea('00000000-0000-0000-0000-00000000002a'::uuid,
		envelope_encrypt('00000000-0000-0000-0000-00000000002a'::uuid, '\x00ff'::bytea)) AS bytea_uuid;
CREATE DOMAIN tenant_name AS varchar(20);
PREPARE by_parameter AS SELECT envelope_decrypt($1, envelope_encrypt($1, $2), '');
EXECUTE by_parameter ('t1', 'hello');
PREPARE by_int (int, varchar) AS SELECT envelope_decrypt($1, envelope_encrypt($1, $2));
EXECUTE by_int (42, 'hello');
SELECT envelope_decrypt('t1'::tenant_name, envelope_encrypt('t1'::varchar, 'hello'::varchar)) AS domain;

-- Every function takes every type of tenant, and means the same one by it.
SELECT envelope_encrypt_deterministic(42, 'x', 'c') = envelope_encrypt_deterministic('42', 'x', 'c') AS deterministic,
	envelope_encrypt_deterministic(42, '\x01'::bytea, 'c') = envelope_encrypt_deterministic('42', '\x01'::bytea, 'c') AS deterministic_bytea,
	envelope_blind_index(42, 'x', 'c') = envelope_blind_index('42', 'x', 'c') AS term,
	envelope_blind_index(42, '\x01'::bytea, 'c') = envelope_blind_index('42', '\x01'::bytea, 'c') AS term_bytea,
	envelope_blind_index_of(42, v, 'c') = envelope_blind_index('42', 'x', 'c') AS term_of,
	envelope_reencrypt(42, v, 'c') = v AS reencrypt
FROM envelope_encrypt('42', 'x', 'c') v;
\set uuid '00000000-0000-0000-0000-00000000002a'
SELECT envelope_encrypt_deterministic(:'uuid'::uuid, 'x', 'c') = envelope_encrypt_deterministic(:'uuid', 'x', 'c') AS deterministic,
	envelope_encrypt_deterministic(:'uuid'::uuid, '\x01'::bytea, 'c') = envelope_encrypt_deterministic(:'uuid', '\x01'::bytea, 'c') AS deterministic_bytea,
	envelope_blind_index(:'uuid'::uuid, 'x', 'c') = envelope_blind_index(:'uuid', 'x', 'c') AS term,
	envelope_blind_index(:'uuid'::uuid, '\x01'::bytea, 'c') = envelope_blind_index(:'uuid', '\x01'::bytea, 'c') AS term_bytea,
	envelope_blind_index_of(:'uuid'::uuid, v, 'c') = envelope_blind_index(:'uuid', 'x', 'c') AS term_of,
	envelope_reencrypt(:'uuid'::uuid, v, 'c') = v AS reencrypt
FROM envelope_encrypt(:'uuid', 'x', 'c') v;
SELECT envelope_decrypt(42::smallint, v) AS smallint, envelope_decrypt('42'::name, v) AS name, envelope_decrypt('42'::char(5), v) AS char,
	outcome(format('SELECT envelope_decrypt(42.0, %L::bytea)', v)) AS numeric
FROM envelope_encrypt(tenant => 42, plaintext => 'x', context => '') v;
-- an identity is exact
SELECT tenant, outcome(format('SELECT envelope_encrypt(%L, %L)', tenant, 'x'))
FROM unnest(array['T1', ' t1', 't1 ', '042', '+42', '00000000-0000-0000-0000-00000000002A', '{00000000-0000-0000-0000-00000000002a}']) tenant;

-- Nothing and the empty string are two things.
SELECT envelope_encrypt('t1', NULL::text) IS NULL AS seal_null,
	envelope_decrypt('t1', NULL) IS NULL AS open_null,
	envelope_blind_index('t1', NULL::text) IS NULL AS term_null,
	envelope_reencrypt('t1', NULL) IS NULL AS reencrypt_null,
	envelope_decrypt('t1', envelope_encrypt('t1', '')) = '' AS empty,
	envelope_decrypt_bytea('t1', envelope_encrypt('t1', ''::bytea)) = ''::bytea AS empty_bytea,
	envelope_decrypt('t1', envelope_encrypt_deterministic('t1', '')) = '' AS empty_deterministic;
SELECT outcome($$SELECT envelope_encrypt(NULL::text, 'x')$$) AS null_tenant,
	outcome($$SELECT envelope_encrypt(NULL::text, NULL::text)$$) AS both_null,
	outcome($$SELECT envelope_encrypt('t1', 'x', NULL)$$) AS null_context,
	outcome($$SELECT envelope_decrypt('t1', '\x00', NULL)$$) AS null_context_open,
	outcome($$SELECT envelope_blind_index(NULL::bigint, 'x')$$) AS null_tenant_term,
	outcome($$SELECT envelope_blind_index('t1', 'x', '', NULL)$$) AS null_bits;
SELECT outcome($$SELECT envelope_encrypt(NULL::uuid, '\x00'::bytea)$$) AS null_uuid,
	outcome($$SELECT envelope_encrypt_deterministic(NULL::text, 'x')$$) AS deterministic,
	outcome($$SELECT envelope_encrypt_deterministic('t1', 'x', NULL)$$) AS deterministic_context,
	outcome($$SELECT envelope_decrypt_bytea(NULL::text, '\x00')$$) AS open_bytea,
	outcome($$SELECT envelope_blind_index_of('t1', '\x00', NULL)$$) AS term_of,
	outcome($$SELECT envelope_reencrypt(NULL::text, '\x00')$$) AS reencrypt,
	outcome($$SELECT envelope_reencrypt('t1', '\x00', NULL)$$) AS reencrypt_context;

-- Sizes: 45 and 29 bytes over the plaintext
SELECT n, length(envelope_encrypt('t1', repeat('x', n))) - n AS sealed,
	length(envelope_encrypt_deterministic('t1', repeat('x', n))) - n AS deterministic
FROM unnest(array[0, 1, 15, 16, 17, 1000]) n;
SELECT length(envelope_encrypt('t1', 'ü€😀')) - 45 AS bytes_in_utf8;

-- What was sealed as one type does not open as another.
SELECT message($$SELECT envelope_decrypt('t1', envelope_encrypt('t1', '\x96ff00'::bytea))$$);
SELECT message($$SELECT envelope_decrypt_bytea('t1', envelope_encrypt('t1', 'x'))$$);

-- Random and deterministic
SELECT envelope_encrypt('t1', 'x') = envelope_encrypt('t1', 'x') AS random_repeats,
	envelope_encrypt_deterministic('t1', 'x') = envelope_encrypt_deterministic('t1', 'x') AS deterministic_repeats,
	envelope_encrypt_deterministic('t1', 'x') = envelope_encrypt_deterministic('t1', 'y') AS across_values,
	envelope_encrypt_deterministic('t1', 'x') = envelope_encrypt_deterministic('t2', 'x') AS across_tenants,
	envelope_encrypt_deterministic('t1', 'x', 'a') = envelope_encrypt_deterministic('t1', 'x', 'b') AS across_contexts,
	envelope_encrypt_deterministic('t1', 'x') = envelope_encrypt_deterministic('t1', 'x'::bytea) AS across_types;
SELECT envelope_decrypt('t1', envelope_encrypt_deterministic('t1', 'x', 'a'), 'a') AS opened,
	envelope_decrypt_bytea('t1', envelope_encrypt_deterministic('t1', '\x01'::bytea, 'a'), 'a') AS opened_bytea;

-- Terms
SELECT bits, length(envelope_blind_index('t1', 'x', 'c', bits)) * 8 = bits AS length,
	envelope_blind_index('t1', 'x', 'c', bits) = substring(envelope_blind_index('t1', 'x', 'c', 256) FOR bits / 8) AS cut
FROM unnest(array[16, 24, 128, 248, 256]) bits;
SELECT bits, outcome(format('SELECT envelope_blind_index(%L, %L, %L, %s)', 't1', 'x', 'c', bits))
FROM unnest(array[0, 8, 12, 17, 257, 264, -16, 2147483647]) bits;
SELECT length(envelope_blind_index('t1', 'x')) AS default_length,
	envelope_blind_index('t1', 'x') = envelope_blind_index('t2', 'x') AS across_tenants,
	envelope_blind_index('t1', 'x', 'a') = envelope_blind_index('t1', 'x', 'b') AS across_contexts,
	envelope_blind_index('t1', 'x') = envelope_blind_index('t1', 'x'::bytea) AS across_types,
	envelope_blind_index(42, 'x') = envelope_blind_index('42', 'x') AS one_tenant,
	envelope_blind_index('t1', 'x', 'c') = envelope_blind_index_of('t1', envelope_encrypt('t1', 'x', 'c'), 'c') AS of_sealed,
	envelope_blind_index('t1', 'x', 'c') = envelope_blind_index_of('t1', envelope_encrypt_deterministic('t1', 'x', 'c'), 'c') AS of_deterministic,
	envelope_blind_index('t1', '\x00'::bytea, 'c') = envelope_blind_index_of('t1', envelope_encrypt('t1', '\x00'::bytea, 'c'), 'c') AS of_bytea;
-- a context cannot be moved into the value, nor the reverse
SELECT envelope_blind_index('t1', 'bc', 'a') = envelope_blind_index('t1', 'c', 'ab') AS moved;

-- Re-encryption under the key that seals already gives back the bytes.
SELECT envelope_reencrypt('t1', v, 'c') = v AS same,
	envelope_reencrypt('t1', d, 'c') = d AS same_deterministic
FROM (SELECT envelope_encrypt('t1', 'x', 'c') AS v, envelope_encrypt_deterministic('t1', 'x', 'c') AS d) s;
SELECT outcome($$SELECT envelope_reencrypt('t1', envelope_encrypt('t1', 'x', 'c'), 'other')$$) AS wrong_context;

-- The header functions, on anything
SELECT envelope_is_sealed(v) AS is_sealed, envelope_key_id(v) = k.key_id AS key_id
FROM envelope_encrypt('t1', 'x') v, envelope.tenant_keys k
WHERE k.tenant_id = 't1' AND k.purpose = 'data';
SELECT envelope_is_sealed(v) AS is_sealed, envelope_key_id(v) = k.key_id AS key_id
FROM envelope_encrypt_deterministic('t1', 'x') v, envelope.tenant_keys k
WHERE k.tenant_id = 't1' AND k.purpose = 'index';
SELECT name, envelope_is_sealed(v) AS is_sealed, envelope_key_id(v) AS key_id
FROM (VALUES ('null', NULL::bytea), ('empty', ''), ('magic', '\xe14e56'),
	('header only', '\xe14e5601' || '\x0000000000000005'::bytea),
	('one byte short', '\xe14e5601' || '\x0000000000000005'::bytea || decode(repeat('00', 32), 'hex')),
	('shortest', '\xe14e5601' || '\x0000000000000005'::bytea || decode(repeat('00', 33), 'hex')),
	('shortest deterministic', '\xe14e5602' || '\x0000000000000005'::bytea || decode(repeat('00', 17), 'hex')),
	('one byte short deterministic', '\xe14e5602' || '\x0000000000000005'::bytea || decode(repeat('00', 16), 'hex')),
	('algorithm 0', '\xe14e5600' || '\x0000000000000005'::bytea || decode(repeat('00', 33), 'hex')),
	('algorithm 3', '\xe14e5603' || '\x0000000000000005'::bytea || decode(repeat('00', 33), 'hex')),
	('other magic', '\xe14e5701' || '\x0000000000000005'::bytea || decode(repeat('00', 33), 'hex')),
	('highest bit', '\xe14e5601' || '\xffffffffffffffff'::bytea || decode(repeat('00', 33), 'hex'))
) s (name, v);

-- also where the bytes are stored compressed, or out of line, or both
CREATE TEMP TABLE stored (storage text, v bytea);
ALTER TABLE stored ALTER v SET STORAGE MAIN;
INSERT INTO stored VALUES ('compressed', '\xe14e5601' || '\x0000000000000005'::bytea || decode(repeat('00', 100000), 'hex'));
ALTER TABLE stored ALTER v SET STORAGE EXTERNAL;
INSERT INTO stored VALUES ('external', '\xe14e5601' || '\x0000000000000005'::bytea || decode(repeat('00', 100000), 'hex')),
	('external junk', decode(repeat('00', 100000), 'hex'));
ALTER TABLE stored ALTER v SET STORAGE EXTENDED;
INSERT INTO stored SELECT 'external and compressed', '\xe14e5602' || '\x0000000000000005'::bytea || decode(string_agg(repeat(md5(g::text), 3), ''), 'hex') FROM generate_series(1, 3000) g;
SELECT storage, pg_column_size(v) < length(v) AS compressed, envelope_is_sealed(v), envelope_key_id(v) FROM stored;

-- A value damaged anywhere: one message, whichever part it is.  Only a key id
-- that does not exist is told apart.
CREATE TEMP TABLE sealed AS
	SELECT envelope_encrypt('t1', 'secret', 'c') AS v, envelope_encrypt_deterministic('t1', 'secret', 'c') AS d;
SELECT message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', set_byte(v, at, get_byte(v, at) # 1), 'c')) AS damaged,
	array_agg(at ORDER BY at) AS bytes
FROM sealed, generate_series(0, length(v) - 1) at WHERE at NOT BETWEEN 4 AND 11 GROUP BY 1;
SELECT outcome(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', set_byte(v, at, get_byte(v, at) # 1), 'c')) AS damaged_key_id,
	count(*)
FROM sealed, generate_series(4, 11) at GROUP BY 1;
SELECT outcome(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', set_byte(d, at, get_byte(d, at) # 128), 'c')) AS damaged_deterministic,
	count(*)
FROM sealed, generate_series(0, length(d) - 1) at WHERE at NOT BETWEEN 4 AND 11 GROUP BY 1;
SELECT outcome(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', substring(v FOR n), 'c')) AS cut, count(*)
FROM sealed, generate_series(0, length(v) - 1) n GROUP BY 1;
SELECT message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS extended,
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v, 'd')) =
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS other_context,
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't2', v, 'c')) =
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS other_tenant
FROM sealed;
-- whoever opens it
SELECT message(format('SELECT envelope_decrypt_bytea(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) =
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS as_bytea,
	message(format('SELECT envelope_reencrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) =
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS reencrypted,
	message(format('SELECT envelope_blind_index_of(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) =
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS hashed,
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', ''::bytea, 'c')) =
	message(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', v || '\x00'::bytea, 'c')) AS empty
FROM sealed;
-- a random value whose algorithm byte says deterministic, and the reverse
SELECT outcome(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', set_byte(v, 3, 2), 'c')),
	outcome(format('SELECT envelope_decrypt(%L, %L::bytea, %L)', 't1', set_byte(d, 3, 1), 'c')) FROM sealed;

-- Tenants and contexts that are none
SELECT outcome($$SELECT envelope_encrypt('', 'x')$$) AS empty_tenant,
	outcome($$SELECT envelope_encrypt('nobody', 'x')$$) AS unknown_tenant,
	outcome($$SELECT envelope_encrypt(repeat('x', 256), 'x')$$) AS long_tenant,
	outcome($$SELECT envelope_encrypt(repeat('x', 1000000), 'x')$$) AS huge_tenant,
	outcome($$SELECT envelope_decrypt('nobody', envelope_encrypt('t1', 'x'))$$) AS open_unknown,
	outcome($$SELECT envelope_decrypt(repeat('x', 256), envelope_encrypt('t1', 'x'))$$) AS open_long,
	outcome($$SELECT envelope_blind_index('nobody', 'x')$$) AS term_unknown;
SELECT envelope_decrypt('t1', envelope_encrypt('t1', 'x', repeat('c', 65535)), repeat('c', 65535)) AS longest_context,
	outcome($$SELECT envelope_encrypt('t1', 'x', repeat('c', 65536))$$) AS longer_context;
-- a key that this database does not have, for a tenant that it has or has not
SELECT message($$SELECT envelope_decrypt('t1', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'))$$) AS unknown_key;
SELECT outcome($$SELECT envelope_decrypt('t1', '\xe14e5601ffffffffffffffff' || decode(repeat('00', 33), 'hex'))$$) AS negative_key,
	outcome($$SELECT envelope_decrypt('t1', '\xe14e56010000000000000000' || decode(repeat('00', 33), 'hex'))$$) AS key_zero;
SELECT outcome($$SELECT envelope_decrypt('nobody', '\xe14e56010000000000000005' || decode(repeat('00', 33), 'hex'))$$) AS unknown_both;

-- Large values: out of line, compressed or not, and beyond what can be
CREATE TEMP TABLE large (storage text, v bytea);
INSERT INTO large SELECT 'main', envelope_encrypt('t1', repeat('0123456789', 100000), 'c');
ALTER TABLE large ALTER v SET STORAGE EXTERNAL;
INSERT INTO large SELECT 'external', envelope_encrypt('t1', repeat('0123456789', 100000), 'c');
SELECT storage, envelope_is_sealed(v), length(v) - 45 AS bytes, envelope_key_id(v) = (SELECT key_id
	FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data') AS key_id,
	md5(envelope_decrypt('t1', v, 'c')) = md5(repeat('0123456789', 100000)) AS opened FROM large;
CREATE TEMP TABLE compressed AS SELECT repeat('0123456789', 100000) AS v;
SELECT md5(envelope_decrypt('t1', envelope_encrypt('t1', v))) = md5(v) AS from_compressed FROM compressed;
