/*-------------------------------------------------------------------------
 *
 * secret.h
 *	  The types that hold key bytes, and how they are wiped.
 *
 * Key bytes stand only in a Dek or a DekSubkeys (and, expanded, in the
 * contexts that crypto/aead owns).  Whoever declares one wipes it with
 * secret_wipe before leaving the block, on every path: so nothing that can
 * throw stands between the moment when it is filled and the wipe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SECRET_H
#define ENVELOPE_SECRET_H

#include <string.h>

#define DEK_BYTES 32			/* AES-256 */

/* A data key as the KMS unwraps it */
typedef struct Dek
{
	uint8		bytes[DEK_BYTES];
} Dek;

/*
 * What a data key is used as.  One of purpose data has only gcm, one of
 * purpose index only siv and index; the others are zero.
 */
typedef struct DekSubkeys
{
	uint8		gcm[32];
	uint8		siv[64];
	uint8		index[32];
} DekSubkeys;

/* Overwrite len bytes so that no compiler leaves it out. */
static inline void
secret_wipe(void *secret, size_t len)
{
	explicit_bzero(secret, len);
}

#endif							/* ENVELOPE_SECRET_H */
