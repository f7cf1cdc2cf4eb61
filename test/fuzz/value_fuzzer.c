/*-------------------------------------------------------------------------
 *
 * value_fuzzer.c
 *	  Sealed values: any bytes are taken apart and opened safely, what opens
 *	  is what was sealed, and what was changed does not open.
 *
 * The keys are those of the test vectors in docs/format.md, so that the seeds
 * can hold values that open.
 *
 * sources: src/crypto/format.c src/crypto/aead.c src/crypto/derive.c
 * libraries: -lcrypto
 * seeds: value_seeds.py
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "crypto/aead.h"
#include "crypto/derive.h"

#define TENANT "acme"
#define CONTEXT "customers.ssn"
#define LABEL_BYTES (4 + sizeof(TENANT) - 1 + 4 + sizeof(CONTEXT) - 1)

/* What the sources want from the server */
int			MyProcPid = 1;

static DekCiphers *ciphers[KEY_PURPOSES];
static uint8 aad[SEALED_HEADER_BYTES + LABEL_BYTES];

extern int	LLVMFuzzerInitialize(int *argc, char ***argv);
extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* As Assert, but always there */
static void
must(bool holds, const char *what)
{
	if (!holds)
	{
		fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}

static DekCiphers *
ciphers_of(KeyPurpose purpose, uint8 first_byte)
{
	Dek			dek;
	DekRoot		root;
	DekSubkeys	subkeys;
	DekCiphers *result = dek_ciphers_create();

	for (int i = 0; i < DEK_BYTES; i++)
		dek.bytes[i] = first_byte + i;
	must(result != NULL && dek_extract(&dek, &root) && dek_derive(&root, purpose, &subkeys) &&
		 dek_ciphers_load(result, purpose, &subkeys), "a key loads");
	return result;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	uint8	   *label = aad + SEALED_HEADER_BYTES;

	ciphers[PURPOSE_DATA] = ciphers_of(PURPOSE_DATA, 0x20);
	ciphers[PURPOSE_INDEX] = ciphers_of(PURPOSE_INDEX, 0x40);
	bytes_put_u32(label, sizeof(TENANT) - 1);
	memcpy(label + 4, TENANT, sizeof(TENANT) - 1);
	label += 4 + sizeof(TENANT) - 1;
	bytes_put_u32(label, sizeof(CONTEXT) - 1);
	memcpy(label + 4, CONTEXT, sizeof(CONTEXT) - 1);
	return 0;
}

/* Open a value into a buffer of exactly its size; NULL where it does not. */
static uint8 *
open_value(const SealedValue *value)
{
	uint8	   *body = malloc(value->body_len);

	memset(body, 0xAA, value->body_len);
	memcpy(aad, value->header, SEALED_HEADER_BYTES);
	if (aead_open(ciphers[algorithm_purpose(value->algorithm)], value,
				  aad, sizeof(aad), body))
		return body;
	for (size_t i = 0; i < value->body_len; i++)
		must(body[i] == 0, "what is not authentic is wiped");
	free(body);
	return NULL;
}

/* Seal body, and return the value; *len is its length. */
static uint8 *
seal_value(SealedAlgorithm algorithm, int64 key_id, const uint8 *iv,
		   const uint8 *body, size_t body_len, size_t *len)
{
	uint8	   *value;
	uint8	   *sealed_body;

	*len = sealed_size(algorithm, body_len - SEALED_KIND_BYTES);
	value = malloc(*len);
	sealed_body = value + SEALED_HEADER_BYTES + SEALED_IV_BYTES;
	sealed_write_header(value, algorithm, key_id);
	memcpy(aad, value, SEALED_HEADER_BYTES);
	if (iv)
		memcpy(value + SEALED_HEADER_BYTES, iv, SEALED_IV_BYTES);
	memcpy(sealed_body, body, body_len);
	must(aead_seal(ciphers[algorithm_purpose(algorithm)], algorithm, aad, sizeof(aad),
				   value + SEALED_HEADER_BYTES, sealed_body, body_len,
				   sealed_body + body_len), "a value is sealed");
	return value;
}

/* Any bytes as a value */
static void
parse_and_open(const uint8 *data, size_t size)
{
	SealedValue value;
	uint8	   *body;
	uint8	   *again;
	size_t		len;

	if (!sealed_parse(data, size, &value))
		return;
	must(value.header == data && value.body_len >= SEALED_KIND_BYTES &&
		 value.body + value.body_len +
		 (value.tag ? SEALED_TAG_BYTES : 0) == data + size, "its parts make up a value");
	must(sealed_size(value.algorithm, value.body_len - SEALED_KIND_BYTES) == size,
		 "its size follows from its plaintext's");

	body = open_value(&value);
	if (body == NULL)
		return;
	again = seal_value(value.algorithm, value.key_id, value.iv, body, value.body_len, &len);
	must(len == size && memcmp(again, data, size) == 0, "what opens was sealed so");
	free(again);
	free(body);
}

/* Any bytes as a plaintext, with its kind byte */
static void
seal_and_damage(SealedAlgorithm algorithm, const uint8 *body, size_t body_len)
{
	uint8		iv[SEALED_IV_BYTES];
	SealedValue value;
	uint8	   *sealed;
	uint8	   *opened;
	size_t		len;
	size_t		damaged;

	must(random_iv(iv), "an IV is drawn");
	sealed = seal_value(algorithm, 42, iv, body, body_len, &len);
	must(sealed_parse(sealed, len, &value) && value.algorithm == algorithm &&
		 value.key_id == 42, "what was sealed is a value");
	opened = open_value(&value);
	must(opened != NULL && memcmp(opened, body, body_len) == 0, "it opens");
	free(opened);

	damaged = (body[0] * 257 + body_len) % len;
	sealed[damaged] ^= 1 << (body[body_len - 1] % 8);
	must(!sealed_parse(sealed, len, &value) || value.algorithm != algorithm ||
		 open_value(&value) == NULL, "damaged it does not");
	free(sealed);
}

static void
hash(const uint8 *data, size_t size)
{
	uint8		term[TERM_MAX_BYTES];
	size_t		context_len = data[0] % size;

	must(term_hash(ciphers[PURPOSE_INDEX], data, context_len, KIND_TEXT,
				   data + context_len, size - context_len, term), "a term is hashed");
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	parse_and_open(data, size);
	if (size > 0)
	{
		seal_and_damage(SEALED_GCM, data, size);
		seal_and_damage(SEALED_SIV, data, size);
		hash(data, size);
	}
	return 0;
}
