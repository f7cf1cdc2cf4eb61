/*-------------------------------------------------------------------------
 *
 * uses.c
 *	  The keys that this transaction has in use.
 *
 * A table of at most USES_MAX keys, expanded into cipher contexts; the one
 * least recently used makes room.  Each has a lease, taken from the shared
 * cache or from an answer of the KMS: until when it may be used, and under
 * which generation of its tenant.
 *
 * When the epoch of the cache has moved, the lease is taken anew.  A key that
 * has merely been displaced from the cache stays good here until its time is
 * over; one whose generation has moved was evicted, and is wiped.
 *
 * All key material is wiped when the transaction ends, whatever way it ends.
 * It is filled by plain calls of OpenSSL, and hangs on static variables, so that
 * an error at any point leaves nothing behind.  The places of a few keys, with
 * nothing in them that is secret, stay for the next transaction, which mostly
 * is about the same keys; a larger table ends with the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "keys/uses.h"
#include "settings.h"
#include "shmem.h"

#define USES_MAX 1024

/* A table of at most so many places stays. */
#define USES_KEPT 16

static MemoryContext uses_context = NULL;
static HTAB *uses = NULL;
static dlist_head uses_by_age;	/* the last used first */
static bool touched = false;	/* by this transaction */

KeyUse	   *key_use_last[KEY_PURPOSES];

/* Begin a table. */
static void
create_uses(void)
{
	HASHCTL		ctl = {0};

	if (uses_context == NULL)
		uses_context = AllocSetContextCreate(TopMemoryContext, "envelope keyring",
											 ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(KeyUse);
	ctl.hcxt = uses_context;
	dlist_init(&uses_by_age);
	uses = hash_create("envelope keyring", USES_KEPT, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Wipe the key of a use. */
static void
unload_use(KeyUse *use)
{
	dek_ciphers_free(use->ciphers);
	use->ciphers = NULL;
	use->loaded = false;
}

/* Forget what is known of a key. */
static void
forget_use(KeyUse *use)
{
	use->loaded = false;
	use->memo_sequence = 0;
	use->seals_sequence = 0;
	use->denied_until = 0;
}

/*
 * Wipe all keys of this transaction.  Does not throw.
 */
void
key_uses_forget(void)
{
	dlist_iter	iter;

	if (!touched)
		return;
	touched = false;
	dlist_foreach(iter, &uses_by_age)
	{
		KeyUse	   *use = dlist_container(KeyUse, node, iter.cur);

		unload_use(use);
		forget_use(use);
	}
	for (int i = 0; i < KEY_PURPOSES; i++)
		key_use_last[i] = NULL;
	if (hash_get_num_entries(uses) <= USES_KEPT)
		return;
	uses = NULL;
	MemoryContextDelete(uses_context);
	uses_context = NULL;
}

/*
 * Give a use to a key.  Ciphers and buffer stay, to be used again.
 */
static void
reset_use(KeyUse *use, const char *tenant, KeyPurpose purpose)
{
	if (key_use_last[use->purpose] == use)
		key_use_last[use->purpose] = NULL;
	/* Loading overwrites only the ciphers of the same purpose. */
	if (use->purpose != purpose)
		unload_use(use);
	strlcpy(use->tenant, tenant, sizeof(use->tenant));
	use->purpose = purpose;
	use->aad_len = 0;
	forget_use(use);
}

/*
 * The place of a key in the table, made where there is none.
 */
KeyUse *
key_use_place(int64 key_id, const char *tenant, KeyPurpose purpose)
{
	KeyUse	   *use;

	if (uses == NULL)
		create_uses();
	touched = true;
	use = hash_search(uses, &key_id, HASH_FIND, NULL);
	if (use == NULL && hash_get_num_entries(uses) < USES_MAX)
	{
		use = hash_search(uses, &key_id, HASH_ENTER, NULL);
		memset((char *) use + sizeof(use->key_id), 0, sizeof(*use) - sizeof(use->key_id));
		dlist_push_head(&uses_by_age, &use->node);
		reset_use(use, tenant, purpose);
		return use;
	}

	if (use == NULL)
	{
		use = dlist_container(KeyUse, node, dlist_tail_node(&uses_by_age));
		if (!hash_update_hash_key(uses, use, &key_id))
			elog(ERROR, "could not reuse a place of the keyring");
		reset_use(use, tenant, purpose);
	}
	else if (use->purpose != purpose || strcmp(use->tenant, tenant) != 0)
		reset_use(use, tenant, purpose);	/* its row was rolled back, and is
											 * now another */
	dlist_move_head(&uses_by_age, &use->node);
	return use;
}

/*
 * The use of a key, as the one used last; NULL where it is not in the table.
 */
KeyUse *
key_use_find(int64 key_id)
{
	KeyUse	   *use = uses ? hash_search(uses, &key_id, HASH_FIND, NULL) : NULL;

	if (use)
		dlist_move_head(&uses_by_age, &use->node);
	return use;
}

/* Expand a key into a use, and wipe it.  False where OpenSSL fails. */
bool
key_use_load(KeyUse *use, DekSubkeys *subkeys)
{
	bool		ok;

	if (use->ciphers == NULL)
		use->ciphers = dek_ciphers_create();
	ok = use->ciphers != NULL &&
		dek_ciphers_load(use->ciphers, use->purpose, subkeys);
	secret_wipe(subkeys, sizeof(*subkeys));
	if (ok)
		use->loaded = true;
	else
		unload_use(use);
	return ok;
}

/*
 * Take a lease on a key anew: it may have been evicted, or be over.  False
 * where the KMS has to be asked.
 */
bool
key_use_renew(KeyUse *use)
{
	DekId		id = {MyDatabaseId, use->key_id};
	DekLease	lease;
	DekSubkeys	subkeys;
	uint64		epoch = dek_cache_epoch();

	if (!use->loaded)
	{
		if (!dek_cache_lookup(&id, use->tenant, &subkeys, &lease))
			return false;
		if (!key_use_load(use, &subkeys))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("OpenSSL failed")));
		use->lease = lease;
	}
	else if (dek_cache_lookup(&id, use->tenant, NULL, &lease))
	{
		/* What is held was evicted, and what is there was unwrapped since. */
		if (lease.generation != use->lease.generation)
		{
			unload_use(use);
			return key_use_renew(use);
		}
		use->lease = lease;
	}
	else if (lease.generation != use->lease.generation ||
			 boottime_ms() >= use->lease.expires_at)
	{
		unload_use(use);
		return false;
	}
	else
		use->lease.refresh_due = false;
	use->epoch = epoch;
	use->values_left = VALUES_PER_LOOK;
	return true;
}

/*
 * Write the additional data of a value into the use: the header, tenant and
 * context, the latter two after their lengths.  For row after row of one
 * column it is there already.
 */
void
key_use_make_aad(KeyUse *use, SealedAlgorithm algorithm,
				 const char *context, size_t context_len)
{
	size_t		tenant_len;
	size_t		len;
	uint8	   *at;

	if (use->aad_len > 0 && use->context_len == context_len &&
		memcmp(use->aad + use->aad_len - context_len,
			   context, context_len) == 0)
		return;

	tenant_len = strlen(use->tenant);
	len = SEALED_HEADER_BYTES + 4 + tenant_len + 4 + context_len;
	if (len > use->aad_size)
	{
		uint8	   *aad = MemoryContextAlloc(uses_context, len);

		if (use->aad)
			pfree(use->aad);
		use->aad = aad;
		use->aad_size = len;
	}
	at = use->aad;
	sealed_write_header(at, algorithm, use->key_id);
	at += SEALED_HEADER_BYTES;
	bytes_put_u32(at, (uint32) tenant_len);
	memcpy(at + 4, use->tenant, tenant_len);
	at += 4 + tenant_len;
	bytes_put_u32(at, (uint32) context_len);
	memcpy(at + 4, context, context_len);
	use->aad_len = len;
	use->context_len = context_len;
}
