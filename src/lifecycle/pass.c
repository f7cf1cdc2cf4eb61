/*-------------------------------------------------------------------------
 *
 * pass.c
 *	  Tenants that are rotated together, and what is recorded of them.
 *
 * A pass is held together by its sweep: the retired keys of all its tenants are
 * one set.  Each tenant has a row in envelope.rotations, unfinished until the
 * proof; the row of the first tells the progress of all, as their column "pass"
 * says.  A tenant whose key cannot be made, or whose values cannot all be
 * re-encrypted, leaves the pass, and its row says why.
 *
 * What is written here is committed by the caller, but where it says otherwise.
 *
 * Locking: the pass holds the lock of each of its tenants (steps.c), for the
 * session, until the tenant leaves it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/store.h"
#include "lifecycle/flip.h"
#include "lifecycle/pass.h"
#include "lifecycle/rotation.h"
#include "lifecycle/steps.h"

/* How often to tell of progress */
#define NOTICE_MS	10000

/* The KEK that wraps a tenant's new keys, kept from being dropped; palloc'd. */
char *
pass_kek_of(const char *tenant)
{
	StoreParam	params[] = {store_text(tenant)};
	char	   *kek = NULL;

	if (store_execute("SELECT kek FROM envelope.tenants WHERE tenant_id = $1",
					  lengthof(params), params) > 0)
		kek = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (kek == NULL)
		kek = store_default_kek();
	if (!store_lock_kek(kek))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist", kek)));
	return kek;
}

/* Record a rotation; its id. */
int64
pass_record(const char *tenant, int64 new_key, const char *phase,
			bool finished, const char *error)
{
	StoreParam	params[] = {
		store_text(tenant),
		{INT8OID, Int64GetDatum(new_key), new_key == NO_KEY},
		store_text(phase),
		{BOOLOID, BoolGetDatum(finished), false},
		store_text(error),
		store_text(audit_login())
	};
	bool		isnull;

	(void) store_execute("UPDATE envelope.rotations"
						 " SET phase = 'superseded', finished_at = now(), waits_for = NULL"
						 " WHERE tenant_id = $1 AND kind = 'dek' AND finished_at IS NULL"
						 " AND $2 IS NOT NULL", lengthof(params), params);
	(void) store_execute("INSERT INTO envelope.rotations"
						 " (kind, tenant_id, new_key, phase, finished_at, error, started_by)"
						 " VALUES ('dek', $1, $2, $3, CASE WHEN $4 THEN now() END, $5, $6)"
						 " RETURNING rotation_id", lengthof(params), params);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									   1, &isnull));
}

/* The unfinished rotation of a tenant; false where there is none. */
static bool
find_unfinished(Rotation *rotation)
{
	StoreParam	params[] = {store_text(rotation->tenant)};
	bool		isnull;

	if (store_execute("SELECT rotation_id, new_key FROM envelope.rotations"
					  " WHERE tenant_id = $1 AND kind = 'dek' AND finished_at IS NULL",
					  lengthof(params), params) == 0)
		return false;
	rotation->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1, &isnull));
	rotation->new_key = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
													SPI_tuptable->tupdesc, 2, &isnull));
	rotation->resumed = true;
	return true;
}

/* Say what has begun. */
void
pass_audit_begin(const char *tenant, const char *kek, int64 key_id)
{
	audit_record("rotation.begin", tenant, kek, key_id, NULL);
}

/*
 * Step 1, for those that have no unfinished rotation.  Tenants that get no key
 * are taken out of the pass.
 */
void
pass_begin(Pass *pass, RotationTrouble trouble)
{
	Flip	   *flips = palloc0(sizeof(Flip) * pass->nrotations);
	int			nflips = 0;
	int			nleft = 0;
	OwnerScope	scope;

	store_begin(&scope);
	for (int i = 0; i < pass->nrotations; i++)
	{
		if (find_unfinished(&pass->rotations[i]))
			continue;
		flips[nflips].tenant = pass->rotations[i].tenant;
		flips[nflips++].kek = pass_kek_of(pass->rotations[i].tenant);
	}
	flip_keys(flips, nflips, trouble == TROUBLE_THROW);

	nflips = 0;
	for (int i = 0; i < pass->nrotations; i++)
	{
		Rotation   *rotation = &pass->rotations[i];
		Flip	   *flip;

		if (!rotation->resumed)
		{
			flip = &flips[nflips++];
			rotation->new_key = flip->key_id;
			rotation->id = pass_record(flip->tenant, flip->key_id,
									   flip->why ? "failed" : "reencrypt",
									   flip->why != NULL, flip->why);
			if (flip->why)
			{
				ereport(WARNING,
						(errmsg("tenant \"%s\" could not be given a new key", flip->tenant),
						 errdetail("%s", flip->why)));
				steps_unlock_tenant(flip->tenant);
				continue;
			}
			pass_audit_begin(flip->tenant, flip->kek, flip->key_id);
		}
		pass->rotations[nleft++] = *rotation;
	}
	pass->nrotations = nleft;
	store_end(&scope);
}

/* The ids of the pass's rotations as a parameter */
static StoreParam
rotation_ids(const Pass *pass)
{
	int64	   *ids = palloc(sizeof(int64) * Max(pass->nrotations, 1));

	for (int i = 0; i < pass->nrotations; i++)
		ids[i] = pass->rotations[i].id;
	return store_int8s(ids, pass->nrotations);
}

/* All rotations of the pass enter a phase; in a transaction of its own. */
void
pass_enter_phase(Pass *pass, const char *phase)
{
	OwnerScope	scope;

	store_begin(&scope);
	{
		StoreParam	params[] = {
			rotation_ids(pass),
			store_text(phase),
			{INT8OID, Int64GetDatum(pass->rotations[0].id), false},
			{INT8OID, Int64GetDatum(pass->sweep->estimated), false}
		};

		(void) store_execute("UPDATE envelope.rotations"
							 " SET phase = $2, pass = $3, waits_for = NULL, relation = NULL,"
							 " rows_seen = 0, rows_estimated = $4, pid = pg_backend_pid(),"
							 " phase_at = clock_timestamp(), progress_at = clock_timestamp()"
							 " WHERE rotation_id = ANY ($1)", lengthof(params), params);
	}
	for (int i = 0; i < pass->nrotations; i++)
		audit_record(psprintf("rotation.%s", phase), pass->rotations[i].tenant,
					 NULL, pass->rotations[i].new_key, NULL);
	store_end(&scope);
	steps_commit();
}

/* Tell of progress in the lead's row, and now and then by a NOTICE. */
void
pass_tell(Pass *pass, const char *waits_for)
{
	OwnerScope	scope;
	Sweep	   *sweep = pass->sweep;
	TimestampTz now = GetCurrentTimestamp();

	store_begin(&scope);
	{
		StoreParam	params[] = {
			{INT8OID, Int64GetDatum(pass->rotations[0].id), false},
			{INT8OID, Int64GetDatum(sweep->seen), false},
			{INT8OID, Int64GetDatum(sweep->rows), false},
			store_text(pass->table),
			store_text(waits_for),
			{INT8OID, Int64GetDatum(sweep->estimated), false}
		};

		(void) store_execute("UPDATE envelope.rotations"
							 " SET rows_seen = $2, rows_reencrypted = $3, relation = $4,"
							 " waits_for = $5, rows_estimated = $6, progress_at = clock_timestamp()"
							 " WHERE rotation_id = $1", lengthof(params), params);
	}
	store_end(&scope);

	if (TimestampDifferenceExceeds(pass->told_at, now, NOTICE_MS))
	{
		pass->told_at = now;
		ereport(NOTICE,
				(errmsg("%s: " INT64_FORMAT " rows re-encrypted, " INT64_FORMAT " of about " INT64_FORMAT " looked at",
						pass->table ? pass->table : "rotation", sweep->rows, sweep->seen,
						Max(sweep->estimated, sweep->seen))));
	}
}

/* Give up, with all that could be done done: some values stay as they were. */
pg_noreturn void
pass_report_trouble(const Pass *pass)
{
	HASH_SEQ_STATUS status;
	SweepKey   *key;
	int64		nunreadable = 0;
	int64		nkept = 0;
	const char *unreadable = NULL;
	const char *kept = NULL;

	hash_seq_init(&status, pass->sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		nunreadable += key->unreadable;
		unreadable = key->unreadable_where ? key->unreadable_where : unreadable;
		nkept += key->kept;
		kept = key->kept_where ? key->kept_where : kept;
	}
	if (nunreadable == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg(INT64_FORMAT " values under retired keys were kept by a trigger", nkept),
				 errdetail("The first is in %s.", kept),
				 errhint("All others are re-encrypted.  Disable the trigger, which is ENABLE ALWAYS or REPLICA, and call again.")));
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_CORRUPT),
			 errmsg(INT64_FORMAT " values under retired keys cannot be opened", nunreadable),
			 errdetail("The first is in %s.", unreadable),
			 errhint("All others are re-encrypted.  Mend or delete these, or check the context that the column was registered with, and call again.")));
}

/*
 * What keeps a tenant from being rotated, palloc'd; NULL where nothing does.
 * If something does, its keys leave the sweep.
 */
static char *
take_out_tenant(Pass *pass, const Rotation *rotation)
{
	size_t		len = strlen(rotation->tenant);
	const char *utf8 = utf8_from_server(rotation->tenant, &len);
	HASH_SEQ_STATUS status;
	SweepKey   *key;
	char	   *why = NULL;

	hash_seq_init(&status, pass->sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		if (strcmp(key->tenant, utf8) != 0)
			continue;
		if (key->failed)
			why = pstrdup(key->failed);
		else if (key->unreadable > 0)
			why = psprintf(INT64_FORMAT " values under retired keys cannot be opened, the first in %s",
						   key->unreadable, key->unreadable_where);
		else if (key->kept > 0)
			why = psprintf(INT64_FORMAT " values under retired keys were kept by a trigger, the first in %s",
						   key->kept, key->kept_where);
	}
	if (why == NULL)
		return NULL;
	hash_seq_init(&status, pass->sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		if (strcmp(key->tenant, utf8) == 0)
			(void) hash_search(pass->sweep->keys, &key->key_id, HASH_REMOVE, NULL);
	}
	return why;
}

/*
 * Go on without the tenants whose values could not all be re-encrypted: what is
 * wrong with one holds up no other.  Their rotations stay unfinished, and say
 * why.
 */
void
pass_leave_out_trouble(Pass *pass)
{
	OwnerScope	scope;
	int			nleft = 0;

	store_begin(&scope);
	for (int i = 0; i < pass->nrotations; i++)
	{
		Rotation   *rotation = &pass->rotations[i];
		char	   *why = take_out_tenant(pass, rotation);

		if (why)
		{
			StoreParam	params[] = {
				{INT8OID, Int64GetDatum(rotation->id), false},
				store_text(why)
			};

			(void) store_execute("UPDATE envelope.rotations SET error = $2, pid = NULL,"
								 " waits_for = NULL WHERE rotation_id = $1",
								 lengthof(params), params);
			ereport(WARNING,
					(errmsg("the rotation of tenant \"%s\" could not be finished", rotation->tenant),
					 errdetail("%s", why),
					 errhint("See envelope_verify_tenant(); the next call goes on with it.")));
			steps_unlock_tenant(rotation->tenant);
		}
		else
			pass->rotations[nleft++] = *rotation;
	}
	pass->nrotations = nleft;
	pass->sweep->ntrouble = 0;
	store_end(&scope);
	steps_commit();
}

/* Find out which keys are the old ones. */
void
pass_gather_keys(Pass *pass)
{
	OwnerScope	scope;

	pass->sweep = sweep_create(pass->context);
	store_begin(&scope);
	for (int i = 0; i < pass->nrotations; i++)
	{
		StoreParam	params[] = {store_text(pass->rotations[i].tenant)};
		size_t		len = strlen(pass->rotations[i].tenant);
		const char *utf8 = utf8_from_server(pass->rotations[i].tenant, &len);
		uint64		nkeys = store_execute("SELECT key_id FROM envelope.tenant_keys"
										  " WHERE tenant_id = $1 AND purpose = 'data'"
										  " AND state IN ('retired', 'scheduled')",
										  lengthof(params), params);

		for (uint64 j = 0; j < nkeys; j++)
		{
			bool		isnull;

			sweep_add_key(pass->sweep,
						  DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[j],
													  SPI_tuptable->tupdesc, 1, &isnull)),
						  utf8);
		}
	}
	store_end(&scope);
}

/* The keys of a tenant that the proof is about, as a JSON array; their rows. */
static char *
tenant_keys_json(const Pass *pass, const char *tenant, int64 *rows)
{
	HASH_SEQ_STATUS status;
	SweepKey   *key;
	StringInfoData json;
	size_t		len = strlen(tenant);
	const char *utf8 = utf8_from_server(tenant, &len);

	*rows = 0;
	initStringInfo(&json);
	hash_seq_init(&status, pass->sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		if (strcmp(key->tenant, utf8) != 0)
			continue;
		*rows += key->rows;
		appendStringInfo(&json, "%s\"" INT64_FORMAT "\"", json.len > 0 ? ", " : "",
						 key->key_id);
	}
	return json.data;
}

/* Step 5: record the proof, and let the tenants go. */
void
pass_record_proof(Pass *pass)
{
	OwnerScope	scope;

	store_begin(&scope);
	for (int i = 0; i < pass->nrotations; i++)
	{
		Rotation   *rotation = &pass->rotations[i];
		int64		rows;
		char	   *keys = tenant_keys_json(pass, rotation->tenant, &rows);
		char	   *proof = psprintf("{\"keys\": [%s], \"columns\": [%s]}",
									 keys, pass->sweep->columns.data);
		StoreParam	params[] = {
			{INT8OID, Int64GetDatum(rotation->id), false},
			store_text(proof),
			{INT8OID, Int64GetDatum(rows), false}
		};

		rotation->rows = rows;
		(void) store_execute("UPDATE envelope.rotations"
							 " SET phase = 'proven', finished_at = clock_timestamp(),"
							 " proof = $2::jsonb, rows_reencrypted = $3, relation = NULL,"
							 " waits_for = NULL, pid = NULL, error = NULL"
							 " WHERE rotation_id = $1", lengthof(params), params);
		audit_record("rotation.proven", rotation->tenant, NULL, rotation->new_key, proof);
	}
	store_end(&scope);
	steps_commit();
	for (int i = 0; i < pass->nrotations; i++)
		steps_unlock_tenant(pass->rotations[i].tenant);
}

/* Be the only one to rotate these tenants, as far as they can be rotated. */
void
pass_lock(Pass *pass, char **tenants, int ntenants, RotationTrouble trouble)
{
	pass->rotations = MemoryContextAllocZero(pass->context,
											 sizeof(Rotation) * Max(ntenants, 1));
	for (int i = 0; i < ntenants; i++)
	{
		if (steps_lock_tenant(tenants[i], true))
			pass->rotations[pass->nrotations++].tenant =
				MemoryContextStrdup(pass->context, tenants[i]);
		else
			ereport(trouble == TROUBLE_THROW ? ERROR : WARNING,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("keys of tenant \"%s\" are being rotated or destroyed by another session",
							tenants[i]),
					 errhint("See the view envelope.rotation_progress.")));
	}
}
