/*-------------------------------------------------------------------------
 *
 * rewrap.c
 *	  Moving wrapped data keys from one KEK to another.
 *
 * The data keys stay what they are, and no row of data is touched: only how they
 * are wrapped changes.  The worker has the new wrapping unwrapped and compares
 * key_check before it says that all is well (kms/task.c); a row is changed
 * only if the wrapping is still the one that was read, so that whoever has
 * destroyed or moved the key meanwhile is not overruled.
 *
 * A tenant's keys move in one transaction; all keys under a KEK in batches
 * (rewrap_kek.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "keys/audit.h"
#include "keys/cache.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "keys/store.h"
#include "keys/tenant.h"
#include "kms/ask.h"
#include "lifecycle/progress.h"
#include "lifecycle/rewrap.h"
#include "lifecycle/steps.h"
#include "shmem.h"

static bytea *
make_bytea(const uint8 *bytes, int len)
{
	bytea	   *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), bytes, len);
	return value;
}

bool
rewrap_fill(int item, KmsRequest *request, void *arg)
{
	Rewrap	   *rewrap = arg;
	Moving	   *key = &rewrap->keys[item];
	KmsPriority priority = request->priority;
	MemoryContext oldcontext;
	KeyRow		row;

	if (rewrap->again && key->outcome != KMS_UNREACHABLE)
		return false;
	if (!catalog_read_wrapped(key->key_id, &row, request) ||
		request->wrapped_len == 0 ||
		(rewrap->kek && strcmp(request->kek, rewrap->kek) != 0))
		return false;			/* somebody has destroyed or moved it */

	oldcontext = MemoryContextSwitchTo(rewrap->context);
	key->tenant = pstrdup(row.tenant);
	key->before = make_bytea(request->wrapped, request->wrapped_len);
	MemoryContextSwitchTo(oldcontext);

	request->operation = KMS_REWRAP;
	request->priority = priority;
	request->database = MyDatabaseId;
	request->generation = dek_cache_generation(MyDatabaseId, row.tenant);
	strlcpy(request->target_kek, rewrap->target->kek, sizeof(request->target_kek));
	strlcpy(request->target_uri, rewrap->target->uri, sizeof(request->target_uri));
	strlcpy(request->target_options, rewrap->target->options, sizeof(request->target_options));
	return true;
}

void
rewrap_take(int item, const KmsReply *reply, void *arg)
{
	Rewrap	   *rewrap = arg;
	Moving	   *key = &rewrap->keys[item];
	MemoryContext oldcontext = MemoryContextSwitchTo(rewrap->context);

	key->outcome = reply->outcome;
	if (reply->outcome == KMS_OK)
	{
		key->after = make_bytea(reply->wrapped, reply->wrapped_len);
		key->version = pstrdup(reply->kek_version);
	}
	else
		key->why = pstrdup(reply->detail);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Replace the wrappings of keys that are still wrapped as they were, between
 * store_begin and store_end.  Returns how many were replaced.
 */
int
rewrap_store(const Rewrap *rewrap)
{
	int64	   *ids = palloc(sizeof(int64) * rewrap->nkeys);
	bytea	  **before = palloc(sizeof(bytea *) * rewrap->nkeys);
	bytea	  **after = palloc(sizeof(bytea *) * rewrap->nkeys);
	char	  **versions = palloc(sizeof(char *) * rewrap->nkeys);
	StoreParam	params[5];
	int			n = 0;

	for (int i = 0; i < rewrap->nkeys; i++)
	{
		const Moving *key = &rewrap->keys[i];

		if (key->after == NULL)
			continue;
		ids[n] = key->key_id;
		before[n] = key->before;
		after[n] = key->after;
		versions[n++] = key->version;
	}
	params[0] = store_int8s(ids, n);
	params[1] = store_byteas(before, n);
	params[2] = store_byteas(after, n);
	params[3] = store_texts(versions, n);
	params[4] = store_text(rewrap->target->kek);
	return (int) store_execute("UPDATE envelope.tenant_keys k"
							   " SET wrapped_dek = u.after, kek = $5, kek_version = u.version"
							   " FROM ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4))"
							   " u (key_id, before, after, version)"
							   " WHERE k.key_id = u.key_id AND k.wrapped_dek = u.before",
							   lengthof(params), params);
}

/* What a request says of a KEK, which is kept from being dropped; 42704. */
const KmsRequest *
rewrap_lock_kek(const char *kek)
{
	KmsRequest *request = palloc0(sizeof(KmsRequest));

	if (!store_lock_kek(kek) || !catalog_read_kek(kek, request))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist", kek)));
	return request;
}

/* Take the keys that a query has found, whose first column is their id. */
void
rewrap_keys(Rewrap *rewrap, uint64 nkeys)
{
	rewrap->nkeys = (int) nkeys;
	rewrap->keys = MemoryContextAllocZero(rewrap->context, sizeof(Moving) * Max(nkeys, 1));
	for (uint64 i = 0; i < nkeys; i++)
	{
		bool		isnull;

		rewrap->keys[i].key_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
															 SPI_tuptable->tupdesc, 1, &isnull));
	}
}

/*
 * Move all keys of a tenant to a KEK, and have it wrap those to come, in the
 * caller's transaction.  Returns how many were moved.  Throws VE001, VE005,
 * 42704, and what keyring_report throws.
 */
int
rewrap_tenant(const char *tenant, const char *kek)
{
	StoreParam	params[] = {store_text(tenant), store_text(kek)};
	Rewrap		rewrap = {NULL};
	OwnerScope	scope;
	uint64		nkeys;
	uint64		nlocked = 0;
	int			nmoved;

	shmem_require();
	store_refuse_serializable("move a tenant's keys");
	store_begin(&scope);
	rewrap.context = CurrentMemoryContext;
	rewrap.target = rewrap_lock_kek(kek);
	if (store_execute("UPDATE envelope.tenants SET kek = $2"
					  " WHERE tenant_id = $1 AND state <> 'destroyed'",
					  lengthof(params), params) == 0)
	{
		(void) tenant_state_of_living(tenant);
		elog(ERROR, "tenant \"%s\" has gone", tenant);
	}
	/* A rotation that was waited for has made another key. */
	do
	{
		nkeys = nlocked;
		nlocked = store_execute("SELECT key_id FROM envelope.tenant_keys"
								" WHERE tenant_id = $1 AND state <> 'destroyed'"
								" AND $2 IS NOT NULL ORDER BY key_id FOR UPDATE",
								lengthof(params), params);
	} while (nlocked != nkeys);
	rewrap_keys(&rewrap, nkeys);
	kms_call_many(rewrap.nkeys, rewrap_fill, rewrap_take, &rewrap);
	for (int i = 0; i < rewrap.nkeys; i++)
	{
		if (rewrap.keys[i].outcome != KMS_OK)
		{
			KmsRequest *request = palloc0(sizeof(KmsRequest));

			strlcpy(request->kek, kek, sizeof(request->kek));
			strlcpy(request->tenant, rewrap.keys[i].tenant, sizeof(request->tenant));
			keyring_report(request, rewrap.keys[i].outcome, rewrap.keys[i].why);
		}
	}
	nmoved = rewrap_store(&rewrap);
	if (nmoved != rewrap.nkeys)
		elog(ERROR, "a key of tenant \"%s\" could not be moved", tenant);
	audit_record("tenant.set_kek", tenant, kek, NO_KEY, NULL);
	store_end(&scope);
	return nmoved;
}
