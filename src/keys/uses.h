/*-------------------------------------------------------------------------
 *
 * uses.h
 *	  The keys that this transaction has in use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_USES_H
#define ENVELOPE_USES_H

#include "lib/ilist.h"

#include "crypto/aead.h"
#include "crypto/format.h"
#include "keys/cache.h"

/*
 * A key is looked at again after so many values even if the epoch stands still,
 * as it does when the worker does.
 */
#define VALUES_PER_LOOK 1000

/* A key in use by this transaction */
typedef struct KeyUse
{
	int64		key_id;			/* the hash key */
	dlist_node	node;			/* in uses_by_age */
	char		tenant[TENANT_MAX_BYTES + 1];
	KeyPurpose	purpose;
	DekCiphers *ciphers;		/* NULL, or of the key that had this place */
	bool		loaded;			/* the ciphers are of this key */
	DekLease	lease;
	uint64		epoch;			/* at which the lease was taken */
	int			values_left;	/* until it is taken again anyway */
	uint64		memo_sequence;	/* at which the memo allowed opening */
	uint64		seals_sequence; /* at which this was the tenant's active key */
	int64		denied_until;	/* the KMS said no; not asked before then */

	/* The additional data of the last value */
	uint8	   *aad;
	size_t		aad_len;
	size_t		aad_size;
	size_t		context_len;
} KeyUse;

/* The use that served the last value of each purpose, or NULL */
extern KeyUse *key_use_last[KEY_PURPOSES];

extern KeyUse *key_use_find(int64 key_id);
extern KeyUse *key_use_place(int64 key_id, const char *tenant, KeyPurpose purpose);
extern bool key_use_load(KeyUse *use, DekSubkeys *subkeys);
extern bool key_use_renew(KeyUse *use);
extern void key_use_make_aad(KeyUse *use, SealedAlgorithm algorithm,
							 const char *context, size_t context_len);
extern void key_uses_forget(void);

#endif							/* ENVELOPE_USES_H */
