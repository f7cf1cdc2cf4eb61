/*-------------------------------------------------------------------------
 *
 * format.h
 *	  The bytes of a sealed value.  docs/format.md is the public description.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_FORMAT_H
#define ENVELOPE_FORMAT_H

#define SEALED_HEADER_BYTES		12	/* magic, algorithm, key id */
#define SEALED_IV_BYTES			16
#define SEALED_TAG_BYTES		16
#define SEALED_KIND_BYTES		1

#define KEY_CHECK_BYTES			32

/* The longest tenant id, in bytes of UTF-8 */
#define TENANT_MAX_BYTES		255

typedef enum SealedAlgorithm
{
	SEALED_GCM = 1,				/* AES-256-GCM, random IV */
	SEALED_SIV = 2				/* AES-256-SIV, RFC 5297, deterministic */
} SealedAlgorithm;

/* What the plaintext was, its first byte under encryption */
typedef enum SealedKind
{
	KIND_TEXT = 1,
	KIND_BYTEA = 2
} SealedKind;

/* What a data key is for */
typedef enum KeyPurpose
{
	PURPOSE_DATA,				/* random IVs; rotates */
	PURPOSE_INDEX				/* deterministic values and terms */
} KeyPurpose;

#define KEY_PURPOSES 2

/* A sealed value taken apart; the pointers point into it */
typedef struct SealedValue
{
	SealedAlgorithm algorithm;
	int64		key_id;
	const uint8 *header;		/* SEALED_HEADER_BYTES */
	const uint8 *iv;			/* SEALED_IV_BYTES */
	const uint8 *body;			/* kind byte and plaintext, encrypted */
	size_t		body_len;		/* at least 1 */
	const uint8 *tag;			/* SEALED_TAG_BYTES; NULL for SIV */
} SealedValue;

static inline KeyPurpose
algorithm_purpose(SealedAlgorithm algorithm)
{
	return algorithm == SEALED_SIV ? PURPOSE_INDEX : PURPOSE_DATA;
}

/*
 * How many bytes a plaintext of plaintext_len bytes takes when sealed.
 */
static inline size_t
sealed_size(SealedAlgorithm algorithm, size_t plaintext_len)
{
	return SEALED_HEADER_BYTES + SEALED_IV_BYTES + SEALED_KIND_BYTES +
		plaintext_len + (algorithm == SEALED_GCM ? SEALED_TAG_BYTES : 0);
}

extern void sealed_write_header(uint8 *out, SealedAlgorithm algorithm,
								int64 key_id);
extern bool sealed_parse(const uint8 *bytes, size_t len, SealedValue *value);

extern const char *purpose_name(KeyPurpose purpose);
extern bool purpose_parse(const char *name, KeyPurpose *purpose);

extern void bytes_put_u32(uint8 *out, uint32 value);
extern void bytes_put_u64(uint8 *out, uint64 value);

#endif							/* ENVELOPE_FORMAT_H */
