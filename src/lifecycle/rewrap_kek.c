/*-------------------------------------------------------------------------
 *
 * rewrap_kek.c
 *	  Rotation of a KEK: all keys under it are wrapped anew.
 *
 * They move in batches, in the order of their ids, each a transaction of its own;
 * the row in envelope.rotations says how far it came, and the next call goes on
 * there, or begins again where keys have failed.  A key that the KMS refuses is
 * named and left alone, and the rotation then ends as incomplete; a KMS that does
 * not answer ends the call, not the rotation.
 *
 * Keys that others are making are not seen before they are committed, and are
 * wrapped as the KEK was when they were begun.  So those who make keys when the
 * rotation begins are waited for before it looks for keys, and those who do when
 * it has done are before it counts what is left.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
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

/* So many keys are re-wrapped by one transaction. */
#define BATCH_KEYS 1000

/*
 * Keys for which a KMS cannot be reached, while it can for others of the batch,
 * are tried again so often, after so long: longer than calls are refused where
 * too many have failed (kms/endpoint.c).
 */
#define RETRY_ROUNDS 3
#define RETRY_MS 2000

/* How long to sleep between two looks whether others make keys */
#define LOOK_MIN_MS 10
#define LOOK_MAX_MS 500

/* How often to tell of progress */
#define NOTICE_MS 10000

/* So many keys that failed are named; the rest is counted. */
#define NAMED_FAILURES 10

/* Where a rotation of a KEK is */
typedef struct KekRotation
{
	int64		id;
	int64		last_key;
	int64		moved;
	int64		seen;
	int64		estimated;		/* keys to come, when it began */
	int64		failed;
	StringInfoData failures;	/* the first of them */
	TimestampTz told_at;
} KekRotation;

/*
 * Keep the new KEK from being dropped until the transaction ends; it must be the one
 * that the rotation began with.
 */
static void
lock_target(const KmsRequest *target)
{
	if (strcmp(rewrap_lock_kek(target->kek)->uri, target->uri) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("KEK \"%s\" has become another one meanwhile", target->kek),
				 errhint("Call again to go on.")));
}

/* Have the new KEK wrap the keys to come, between store_begin and store_end. */
static void
move_tenants(const char *kek, const KmsRequest *target)
{
	StoreParam	params[] = {store_text(kek), store_text(target->kek)};

	lock_target(target);
	(void) store_execute("UPDATE envelope.tenants SET kek = $2"
						 " WHERE kek = $1 AND kek <> $2 AND state <> 'destroyed'",
						 lengthof(params), params);
}

/*
 * The unfinished rotation from one KEK to the other, or a new one.  One in which
 * keys have failed tries all again that are still under the old KEK: it could not
 * tell otherwise whether it is complete.
 */
static void
begin_kek_rotation(KekRotation *rotation, const char *kek, const KmsRequest *target)
{
	StoreParam	params[3] = {store_text(kek), store_text(target->kek)};
	OwnerScope	scope;
	bool		isnull;

	store_begin(&scope);
	lock_target(target);
	if (store_execute("SELECT rotation_id, CASE WHEN error IS NULL THEN coalesce(last_key, 0) ELSE 0 END,"
					  " CASE WHEN error IS NULL OR $1 <> $2 THEN rows_reencrypted ELSE 0 END"
					  " FROM envelope.rotations WHERE kind = 'kek' AND finished_at IS NULL"
					  " AND kek = $1 AND new_kek = $2 ORDER BY rotation_id DESC LIMIT 1",
					  2, params) > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		rotation->id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		rotation->last_key = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
		rotation->moved = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	}
	params[2] = (StoreParam)
	{
		INT8OID, Int64GetDatum(rotation->last_key), false
	};
	(void) store_execute("SELECT count(*) FROM envelope.tenant_keys"
						 " WHERE kek = $1 AND state <> 'destroyed' AND $2 IS NOT NULL"
						 " AND key_id > $3", lengthof(params), params);
	rotation->estimated = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc, 1, &isnull));
	move_tenants(kek, target);
	if (rotation->id == 0)
	{
		rotation->id = progress_insert("kek", NULL, kek, target->kek, "rewrap");
		audit_record("kek.rotate", NULL, kek, NO_KEY,
					 psprintf("{\"to\": \"%s\", \"rotation\": " INT64_FORMAT "}",
							  target->kek, rotation->id));
	}
	progress_phase(rotation->id, "rewrap", rotation->estimated);
	store_end(&scope);
	steps_commit();
}

/*
 * Have the keys of a batch re-wrapped, in transactions that hold nothing.
 */
static void
call_for_batch(Rewrap *rewrap)
{
	rewrap->again = false;
	kms_call_many(rewrap->nkeys, rewrap_fill, rewrap_take, rewrap);
	for (int round = 0; round < RETRY_ROUNDS; round++)
	{
		int			nunreachable = 0;

		for (int i = 0; i < rewrap->nkeys; i++)
			nunreachable += rewrap->keys[i].outcome == KMS_UNREACHABLE;
		if (nunreachable == 0 || nunreachable == rewrap->nkeys)
			return;
		steps_commit();
		steps_sleep(RETRY_MS);
		steps_commit();
		rewrap->again = true;
		kms_call_many(rewrap->nkeys, rewrap_fill, rewrap_take, rewrap);
	}
}

/* Name what failed; VE003 where nothing was answered at all. */
static void
note_failures(KekRotation *rotation, const Rewrap *rewrap)
{
	int			nunreachable = 0;
	const char *why = NULL;

	for (int i = 0; i < rewrap->nkeys; i++)
	{
		const Moving *key = &rewrap->keys[i];
		size_t		len;

		if (key->outcome == KMS_OK)
			continue;
		if (key->outcome == KMS_UNREACHABLE)
		{
			nunreachable++;
			why = key->why;
		}
		if (rotation->failed++ >= NAMED_FAILURES)
			continue;
		len = strlen(key->tenant);
		appendStringInfo(&rotation->failures, "%skey " INT64_FORMAT " of tenant \"%s\" is %s: %s",
						 rotation->failures.len > 0 ? "\n" : "", key->key_id,
						 utf8_to_server(key->tenant, &len),
						 kms_outcome_name(key->outcome), key->why);
	}
	if (nunreachable > 0 && nunreachable == rewrap->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_UNREACHABLE),
				 errmsg("the KMS could not be reached for the keys under KEK \"%s\"", rewrap->kek),
				 errdetail("%s", why),
				 errhint("Call again to go on.")));
}

/* Tell of progress, and now and then by a NOTICE. */
static void
tell_progress(KekRotation *rotation)
{
	TimestampTz now = GetCurrentTimestamp();

	progress_tell(rotation->id, rotation->seen, rotation->moved, NULL, NULL);
	if (!TimestampDifferenceExceeds(rotation->told_at, now, NOTICE_MS))
		return;
	rotation->told_at = now;
	ereport(NOTICE,
			(errmsg(INT64_FORMAT " of about " INT64_FORMAT " keys looked at, " INT64_FORMAT " re-wrapped",
					rotation->seen, Max(rotation->estimated, rotation->seen), rotation->moved)));
}

/* Re-wrap the next batch; false where there is none. */
static bool
rewrap_batch(KekRotation *rotation, Rewrap *rewrap)
{
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "envelope rewrap",
												ALLOCSET_DEFAULT_SIZES);
	StoreParam	params[3];
	OwnerScope	scope;
	bool		more;

	rewrap->context = batch;
	store_begin(&scope);
	params[0] = store_text(rewrap->kek);
	params[1] = (StoreParam)
	{
		INT8OID, Int64GetDatum(rotation->last_key), false
	};
	params[2] = (StoreParam)
	{
		INT8OID, Int64GetDatum(BATCH_KEYS), false
	};
	rewrap_keys(rewrap, store_execute("SELECT key_id FROM envelope.tenant_keys"
									  " WHERE kek = $1 AND key_id > $2 AND state <> 'destroyed'"
									  " ORDER BY key_id LIMIT $3", lengthof(params), params));
	store_end(&scope);

	more = rewrap->nkeys > 0;
	if (more)
	{
		call_for_batch(rewrap);
		note_failures(rotation, rewrap);
		rotation->last_key = rewrap->keys[rewrap->nkeys - 1].key_id;
		rotation->seen += rewrap->nkeys;

		store_begin(&scope);
		lock_target(rewrap->target);
		rotation->moved += rewrap_store(rewrap);
		params[0] = (StoreParam)
		{
			INT8OID, Int64GetDatum(rotation->id), false
		};
		params[1] = (StoreParam)
		{
			INT8OID, Int64GetDatum(rotation->last_key), false
		};
		params[2] = store_text(rotation->failed > 0 ? rotation->failures.data : NULL);
		(void) store_execute("UPDATE envelope.rotations SET last_key = $2, error = $3"
							 " WHERE rotation_id = $1", lengthof(params), params);
		store_end(&scope);
		tell_progress(rotation);
	}
	steps_commit();
	MemoryContextDelete(batch);
	return more;
}

/*
 * Wait until those who make keys under a KEK now have ended; who comes later is not
 * waited for.
 */
static void
await_makers(const KekRotation *rotation, const char *kek)
{
	ListCell   *cell;

	foreach(cell, store_lockers_of_kek(kek))
	{
		TransactionId xid = (TransactionId) lfirst_oid(cell);
		long		ms = LOOK_MIN_MS;

		while (TransactionIdIsInProgress(xid))
		{
			/* Most are gone by the second look, and not worth a word. */
			if (ms > LOOK_MIN_MS)
			{
				const char *whom = steps_describe_xid(xid);

				progress_tell(rotation->id, rotation->seen, rotation->moved, NULL,
							  whom ? whom : "a transaction that makes keys");
			}
			steps_commit();
			steps_sleep(ms);
			ms = Min(ms * 2, LOOK_MAX_MS);
			steps_commit();
		}
	}
	steps_commit();
}

/* How many keys are still under a KEK */
static int64
count_keys_under(const char *kek)
{
	StoreParam	params[] = {store_text(kek)};
	OwnerScope	scope;
	bool		isnull;
	int64		nkeys;

	store_begin(&scope);
	(void) store_execute("SELECT count(*) FROM envelope.tenant_keys"
						 " WHERE kek = $1 AND state <> 'destroyed'",
						 lengthof(params), params);
	nkeys = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										1, &isnull));
	store_end(&scope);
	return nkeys;
}

/* The end: complete or not, said and recorded. */
static bool
finish_kek_rotation(KekRotation *rotation, const char *kek, const char *target)
{
	int64		nleft = strcmp(kek, target) == 0 ? rotation->failed : count_keys_under(kek);
	OwnerScope	scope;

	store_begin(&scope);
	progress_finish(rotation->id, nleft == 0 ? "done" : "incomplete", NULL,
					rotation->failures.len > 0 ? rotation->failures.data : NULL);
	audit_record(nleft == 0 ? "kek.rotated" : "kek.rotated_in_part", NULL, kek, NO_KEY,
				 psprintf("{\"to\": \"%s\", \"moved\": " INT64_FORMAT ", \"left\": " INT64_FORMAT "}",
						  target, rotation->moved, nleft));
	store_end(&scope);
	steps_commit();
	if (nleft > 0)
		ereport(WARNING,
				(errmsg("the rotation is not complete: " INT64_FORMAT " keys are still wrapped as they were",
						nleft),
				 rotation->failures.len > 0 ? errdetail("%s", rotation->failures.data) : 0,
				 errhint("Mend the cause and call again.")));
	return nleft == 0;
}

/*
 * Re-wrap all keys under a KEK under another one, or under its own newest
 * version, from steps_begin on.  True where all of them could be.
 */
bool
rewrap_kek(const char *kek, const char *target)
{
	KekRotation rotation = {0};
	Rewrap		rewrap = {kek};
	KmsRequest *target_request = palloc0(sizeof(KmsRequest));
	OwnerScope	scope;
	bool		complete;

	shmem_require();
	initStringInfo(&rotation.failures);
	rotation.told_at = GetCurrentTimestamp();
	if (!catalog_read_kek(kek, target_request) || !catalog_read_kek(target, target_request))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist",
						catalog_read_kek(kek, target_request) ? target : kek)));
	rewrap.target = target_request;
	if (!steps_lock_kek(kek))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("KEK \"%s\" is being rotated by another session", kek),
				 errhint("See the view envelope.rotation_progress.")));
	begin_kek_rotation(&rotation, kek, target_request);
	await_makers(&rotation, kek);
	store_begin(&scope);
	move_tenants(kek, target_request);
	store_end(&scope);
	steps_commit();
	while (rewrap_batch(&rotation, &rewrap))
		;
	await_makers(&rotation, kek);
	complete = finish_kek_rotation(&rotation, kek, target);
	steps_unlock_kek(kek);
	return complete;
}
