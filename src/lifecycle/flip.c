/*-------------------------------------------------------------------------
 *
 * flip.c
 *	  Making a new data key the one that seals.
 *
 * The KMS generates the keys, many in flight; then, in the caller's
 * transaction, each tenant's active key retires and the new one takes its
 * place.  A key that was generated for a transaction that is rolled back is
 * known to nobody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "keys/provision.h"
#include "keys/store.h"
#include "kms/ask.h"
#include "lifecycle/flip.h"

typedef struct FlipBatch
{
	Flip	   *flips;
	NewKey	   *keys;
	MemoryContext context;
	bool		throw;
} FlipBatch;

static bool
fill_generate(int item, KmsRequest *request, void *arg)
{
	FlipBatch  *batch = arg;
	Flip	   *flip = &batch->flips[item];
	KmsPriority priority = request->priority;

	if (!catalog_read_kek(flip->kek, request))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist", flip->kek)));
	request->priority = priority;
	provision_fill_generate(flip->tenant, PURPOSE_DATA, request);
	flip->key_id = request->key_id;
	return true;
}

static void
take_generated(int item, const KmsReply *reply, void *arg)
{
	FlipBatch  *batch = arg;
	Flip	   *flip = &batch->flips[item];
	NewKey	   *key = &batch->keys[item];
	MemoryContext oldcontext = MemoryContextSwitchTo(batch->context);

	if (reply->outcome == KMS_OK)
	{
		key->key_id = flip->key_id;
		key->tenant = flip->tenant;
		key->purpose = PURPOSE_DATA;
		key->kek_version = pstrdup(reply->kek_version);
		key->wrapped = palloc(reply->wrapped_len);
		key->wrapped_len = reply->wrapped_len;
		memcpy(key->wrapped, reply->wrapped, reply->wrapped_len);
		memcpy(key->key_check, reply->key_check, KEY_CHECK_BYTES);
	}
	else
	{
		flip->key_id = NO_KEY;
		flip->why = psprintf("KEK \"%s\" is %s: %s", flip->kek,
							 kms_outcome_name(reply->outcome), reply->detail);
		if (batch->throw)
		{
			KmsRequest *request = palloc0(sizeof(KmsRequest));
			size_t		len = strlen(flip->tenant);

			strlcpy(request->kek, flip->kek, sizeof(request->kek));
			strlcpy(request->tenant, utf8_from_server(flip->tenant, &len),
					sizeof(request->tenant));
			keyring_report(request, reply->outcome, reply->detail);
		}
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Lock a tenant's active key, and look whether the new key is still wrapped by
 * the tenant's KEK: who moves the tenant to another one locks its keys, too, and
 * would not see this one.
 */
static bool
lock_active_key(const Flip *flip)
{
	StoreParam	params[] = {store_text(flip->tenant), store_text(flip->kek)};

	(void) store_execute("SELECT FROM envelope.tenant_keys WHERE tenant_id = $1"
						 " AND purpose = 'data' AND state = 'active' FOR UPDATE",
						 1, params);
	return store_execute("SELECT FROM envelope.tenants"
						 " WHERE tenant_id = $1 AND coalesce(kek, $2) = $2",
						 lengthof(params), params) > 0;
}

/*
 * Give each tenant a new active key, between store_begin and store_end.  Where
 * the KMS gives none, throws as keyring_report does, or notes why.
 */
void
flip_keys(Flip *flips, int nflips, bool throw)
{
	FlipBatch	batch = {flips, palloc0(sizeof(NewKey) * Max(nflips, 1)),
	CurrentMemoryContext, throw};

	kms_call_many(nflips, fill_generate, take_generated, &batch);
	for (int i = 0; i < nflips; i++)
	{
		StoreParam	params[] = {store_text(flips[i].tenant)};

		if (flips[i].key_id == NO_KEY)
			continue;
		if (!lock_active_key(&flips[i]))
		{
			flips[i].key_id = NO_KEY;
			flips[i].why = "it was moved to another KEK meanwhile";
			if (throw)
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("tenant \"%s\" was moved to another KEK meanwhile", flips[i].tenant),
						 errhint("Call again.")));
			continue;
		}
		(void) store_execute("UPDATE envelope.tenant_keys"
							 " SET state = 'retired', state_changed_at = now()"
							 " WHERE tenant_id = $1 AND purpose = 'data' AND state = 'active'",
							 lengthof(params), params);
		store_insert_keys(&batch.keys[i], 1, flips[i].kek);
	}
}
