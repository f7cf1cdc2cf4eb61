/*-------------------------------------------------------------------------
 *
 * format.c
 *	  Writing and taking apart the bytes of a sealed value, version 1:
 *
 *		E1 4E 56 | algorithm | key id, 8 bytes | IV, 16 | body | tag, 16
 *
 * The tag is there for AES-GCM only: with AES-SIV the IV is the tag.  The
 * body is a kind byte and the plaintext, encrypted.  All integers are
 * big-endian.  Nothing here needs a key, and any bytes are safe to parse.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bswap.h"

#include "crypto/format.h"

static const uint8 magic[3] = {0xE1, 0x4E, 0x56};

/*
 * Write the SEALED_HEADER_BYTES that a value begins with.
 */
void
sealed_write_header(uint8 *out, SealedAlgorithm algorithm, int64 key_id)
{
	memcpy(out, magic, sizeof(magic));
	out[3] = (uint8) algorithm;
	bytes_put_u64(out + 4, (uint64) key_id);
}

/*
 * Take a value apart.  False where the bytes are no sealed value of a
 * version that is known here; *value is then undefined.
 */
bool
sealed_parse(const uint8 *bytes, size_t len, SealedValue *value)
{
	uint64		key_id;

	if (len < SEALED_HEADER_BYTES || memcmp(bytes, magic, sizeof(magic)) != 0)
		return false;
	if (bytes[3] != SEALED_GCM && bytes[3] != SEALED_SIV)
		return false;

	value->algorithm = (SealedAlgorithm) bytes[3];
	if (len < sealed_size(value->algorithm, 0))
		return false;

	memcpy(&key_id, bytes + 4, sizeof(key_id));
	value->key_id = (int64) pg_ntoh64(key_id);
	value->header = bytes;
	value->iv = bytes + SEALED_HEADER_BYTES;
	value->body = value->iv + SEALED_IV_BYTES;
	value->body_len = len - sealed_size(value->algorithm, 0) + SEALED_KIND_BYTES;
	value->tag = value->algorithm == SEALED_GCM ?
		value->body + value->body_len : NULL;
	return true;
}

/* The name of a purpose, as tenant_keys.purpose has it */
const char *
purpose_name(KeyPurpose purpose)
{
	return purpose == PURPOSE_INDEX ? "index" : "data";
}

/* The reverse; false where the name is none */
bool
purpose_parse(const char *name, KeyPurpose *purpose)
{
	for (int i = 0; i < KEY_PURPOSES; i++)
	{
		if (strcmp(name, purpose_name((KeyPurpose) i)) == 0)
		{
			*purpose = (KeyPurpose) i;
			return true;
		}
	}
	return false;
}

void
bytes_put_u32(uint8 *out, uint32 value)
{
	value = pg_hton32(value);
	memcpy(out, &value, sizeof(value));
}

void
bytes_put_u64(uint8 *out, uint64 value)
{
	value = pg_hton64(value);
	memcpy(out, &value, sizeof(value));
}
