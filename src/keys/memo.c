/*-------------------------------------------------------------------------
 *
 * memo.c
 *	  What this backend knows of tenants and keys.
 *
 * A memo of rows of envelope.tenants and envelope.tenant_keys, without any
 * secret, that is good for the whole session: a row of a scan asks it instead
 * of the tables.  A trigger on both tables (keys/guard.c) invalidates their
 * relcache entries with every change, so that the message reaches each backend
 * with the transaction that made it, on standbys too, and this transaction's
 * own changes at its next command and when they are rolled back.  The callback
 * here then drops the memo as a whole.
 *
 * A row is kept only if no such message came in between reading it and keeping
 * it: it might be the one that made it old.  That something does not exist is
 * not kept, so that what a memo takes is bounded by what exists, and by
 * MEMO_MAX.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "keys/memo.h"

/*
 * Beyond this many entries the memo starts anew; some 100 bytes each.  A tenant
 * that is sealed for and opened takes two.
 */
#define MEMO_MAX 65536

typedef struct TenantMemo
{
	uint64		hash;			/* of the tenant; the key */
	char	   *tenant;
	TenantRow	row;
} TenantMemo;

static MemoryContext memo_context = NULL;
static HTAB *tenants = NULL;
static HTAB *keys = NULL;

/* Advanced by the callback, which may come at any moment */
static uint64 sequence = 1;

/* The sequence at which the memo was begun; 0 where there is none */
static uint64 begun_at = 0;

/* The tables, as the memo last read them */
static Oid	tenants_relid = InvalidOid;
static Oid	tenant_keys_relid = InvalidOid;

static void
relcache_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || !OidIsValid(tenants_relid) ||
		relid == tenants_relid || relid == tenant_keys_relid)
		sequence++;
}

/* Called from _PG_init. */
void
memo_init(void)
{
	CacheRegisterRelcacheCallback(relcache_changed, (Datum) 0);
}

/*
 * A number that moves when anything that was known of tenants and keys may
 * have changed.
 */
uint64
memo_sequence(void)
{
	return sequence;
}

static HTAB *
create_table(const char *name, Size entrysize)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(uint64);
	ctl.entrysize = entrysize;
	ctl.hcxt = memo_context;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Begin anew where the memo is old, or too large. */
static void
renew(void)
{
	if (begun_at == sequence &&
		hash_get_num_entries(tenants) + hash_get_num_entries(keys) < MEMO_MAX)
		return;

	begun_at = 0;
	if (memo_context == NULL)
		memo_context = AllocSetContextCreate(CacheMemoryContext, "envelope memo",
											 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(memo_context);
	tenants = create_table("envelope tenants", sizeof(TenantMemo));
	keys = create_table("envelope keys", sizeof(KeyMemo));
	begun_at = sequence;
}

/*
 * May what was read since the sequence was then be kept?
 */
static bool
begin_keeping(uint64 then)
{
	if (then != sequence)
		return false;
	renew();
	return then == sequence;
}

/* Learn which relations to watch, before they are read. */
static void
watch_tables(void)
{
	Oid			tenants_now = catalog_relation("tenants");
	Oid			keys_now = catalog_relation("tenant_keys");

	if (tenants_now != tenants_relid || keys_now != tenant_keys_relid)
	{
		tenants_relid = tenants_now;
		tenant_keys_relid = keys_now;
		sequence++;
	}
}

/*
 * What is true now of a tenant (UTF-8); false where there is none.
 */
bool
memo_tenant(const char *tenant, TenantRow *row)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) tenant,
										   strlen(tenant), 0);
	TenantMemo *memo;
	uint64		then;

	if (begun_at == sequence)
	{
		memo = hash_search(tenants, &hash, HASH_FIND, NULL);
		if (memo && strcmp(memo->tenant, tenant) == 0)
		{
			*row = memo->row;
			return true;
		}
	}

	watch_tables();
	then = sequence;
	if (!catalog_read_tenant(tenant, row))
		return false;

	if (begin_keeping(then))
	{
		char	   *copy = MemoryContextStrdup(memo_context, tenant);

		memo = hash_search(tenants, &hash, HASH_ENTER, NULL);
		memo->tenant = copy;
		memo->row = *row;
	}
	return true;
}

/*
 * What is true now of a key and its tenant; NULL where there is none.  The
 * result is good until the memo is asked again.
 */
const KeyMemo *
memo_key(int64 key_id)
{
	static KeyRow row;
	static KeyMemo unkept;
	TenantRow	tenant_row;
	KeyMemo    *memo;
	uint64		then;

	if (begun_at == sequence)
	{
		memo = hash_search(keys, &key_id, HASH_FIND, NULL);
		if (memo)
			return memo;
	}

	watch_tables();
	then = sequence;
	if (!catalog_read_key(key_id, &row) ||
		!catalog_read_tenant(row.tenant, &tenant_row))
		return NULL;

	memo = &unkept;
	if (begin_keeping(then))
	{
		const char *copy = MemoryContextStrdup(memo_context, row.tenant);

		memo = hash_search(keys, &key_id, HASH_ENTER, NULL);
		memo->tenant = copy;
	}
	else
		memo->tenant = row.tenant;
	memo->tenant_state = tenant_row.state;
	memo->purpose = row.purpose;
	memo->state = row.state;
	return memo;
}
