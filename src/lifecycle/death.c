/*-------------------------------------------------------------------------
 *
 * death.c
 *	  The end of data keys that nothing needs any more.
 *
 * A retired key dies in these steps, each in transactions of its own:
 *
 *	a. it becomes scheduled: from the commit on, no trigger lets a value under it
 *	   be stored, while it still opens;
 *	b. every transaction that runs is waited for, since it may have stored one
 *	   before, or its trigger may not know yet;
 *	c. every bytea column of the database is looked at, registered or not;
 *	d. where a value is found, the key is retired again and the place is named;
 *	e. else all running transactions are waited for once more, so that no
 *	   snapshot shows a row that was there before;
 *	f. the key's row is locked; if it is still as step a left it, and every
 *	   registered and protected column has its trigger, the key is destroyed.
 *
 * Before a, the columns are looked at once without obligation: a key that is
 * still needed is not scheduled at all, and nobody is refused anything.
 *
 * A wait is no state: where this was interrupted the key stays scheduled, and
 * the next call begins again at b.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/store.h"
#include "lifecycle/death.h"
#include "lifecycle/progress.h"
#include "lifecycle/steps.h"
#include "lifecycle/sweep.h"
#include "shmem.h"
#include "tables/registry.h"

/* A key that is to die */
typedef struct Dying
{
	int64		key_id;
	char	   *tenant;			/* server encoding */
	TimestampTz scheduled_at;	/* state_changed_at of step a */
	bool		spared;
} Dying;

typedef struct Death
{
	MemoryContext context;
	Dying	   *keys;
	int			nkeys;
	Sweep	   *sweep;
	int64		progress;		/* the row in envelope.rotations */
	const char *table;
} Death;

/*
 * Find the keys that may die: retired ones, and those that an interrupted call
 * has scheduled.  With a retention, in minutes, only those that were proven not
 * to be needed so long ago.
 */
static void
find_keys(Death *death, char **tenants, int ntenants, int retention_min)
{
	StoreParam	params[] = {
		store_texts(tenants, ntenants),
		{INT4OID, Int32GetDatum(retention_min), retention_min < 0}
	};
	OwnerScope	scope;
	uint64		nkeys;

	store_begin(&scope);
	nkeys = store_execute("SELECT k.key_id, k.tenant_id FROM envelope.tenant_keys k"
						  " WHERE k.tenant_id = ANY ($1) AND k.purpose = 'data'"
						  " AND (k.state = 'scheduled' OR k.state = 'retired' AND ($2 IS NULL OR EXISTS ("
						  "SELECT FROM envelope.rotations r WHERE r.tenant_id = k.tenant_id"
						  " AND r.phase = 'proven' AND r.proof->'keys' ? k.key_id::text"
						  " AND r.finished_at + make_interval(mins => $2) <= now())))"
						  " ORDER BY 1", lengthof(params), params);
	death->keys = MemoryContextAllocZero(death->context, sizeof(Dying) * Max(nkeys, 1));
	death->nkeys = (int) nkeys;
	for (uint64 i = 0; i < nkeys; i++)
	{
		bool		isnull;
		char	   *tenant = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);
		size_t		len = strlen(tenant);

		death->keys[i].key_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
															SPI_tuptable->tupdesc, 1, &isnull));
		death->keys[i].tenant = MemoryContextStrdup(death->context, tenant);
		sweep_add_key(death->sweep, death->keys[i].key_id, utf8_from_server(tenant, &len));
	}
	store_end(&scope);
}

/* Told by the waits */
static void
tell_waiting(const char *whom, void *arg)
{
	Death	   *death = arg;

	progress_tell(death->progress, death->sweep->seen, 0, death->table, whom);
	if (whom)
		ereport(NOTICE,
				(errmsg("waiting for %s to end its transaction", whom)));
}

/*
 * Look for the keys in every bytea column of the database: again in tables that
 * were made meanwhile, to which values may have been moved before the table that
 * they were in was looked at, until there are no new ones.
 */
static void
scan_database(Death *death, const char *phase)
{
	HASHCTL		ctl = {0};
	HTAB	   *scanned;
	bool		more;

	ctl.keysize = ctl.entrysize = sizeof(Oid);
	ctl.hcxt = death->context;
	scanned = hash_create("envelope scanned tables", 256, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	sweep_begin_scan(death->sweep);
	do
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(death->context);
		int			ntables;
		Oid		   *tables = sweep_scan_tables(SWEEP_ALL_BYTEA, &ntables);

		MemoryContextSwitchTo(oldcontext);
		if (hash_get_num_entries(scanned) == 0)
			progress_phase(death->progress, phase, ntables);
		steps_commit();
		more = false;
		for (int i = 0; i < ntables; i++)
		{
			bool		found;

			(void) hash_search(scanned, &tables[i], HASH_ENTER, &found);
			if (found)
				continue;
			more = true;
			sweep_scan(death->sweep, tables[i], SWEEP_ALL_BYTEA);
			steps_commit();
		}
		pfree(tables);
	} while (more);
	hash_destroy(scanned);
}

/* What the last scan found of a key; NULL where it is not found. */
static const SweepKey *
found(const Death *death, const Dying *key)
{
	SweepKey   *swept = hash_search(death->sweep->keys, &key->key_id, HASH_FIND, NULL);

	return swept->hits > 0 ? swept : NULL;
}

/* Change a key's state, where it is what it is thought to be. */
static bool
change_state(Dying *key, const char *from, const char *to, const char *event)
{
	StoreParam	params[] = {
		{INT8OID, Int64GetDatum(key->key_id), false},
		store_text(from),
		store_text(to),
		{TIMESTAMPTZOID, TimestampTzGetDatum(key->scheduled_at), key->scheduled_at == 0}
	};
	OwnerScope	scope;
	bool		changed;
	bool		isnull;

	store_begin(&scope);
	changed = store_execute("UPDATE envelope.tenant_keys"
							" SET state = $3, state_changed_at = clock_timestamp(),"
							" wrapped_dek = CASE WHEN $3 <> 'destroyed' THEN wrapped_dek END"
							" WHERE key_id = $1 AND state = $2"
							" AND ($4 IS NULL OR state_changed_at = $4)"
							" RETURNING state_changed_at", lengthof(params), params) > 0;
	if (changed)
	{
		key->scheduled_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
															  SPI_tuptable->tupdesc, 1, &isnull));
		audit_record(event, key->tenant, NULL, key->key_id, NULL);
	}
	store_end(&scope);
	return changed;
}

/* Name what was found, and leave those keys out. */
static void
spare_found(Death *death, bool scheduled)
{
	for (int i = 0; i < death->nkeys; i++)
	{
		Dying	   *key = &death->keys[i];
		const SweepKey *swept = key->spared ? NULL : found(death, key);

		if (swept == NULL)
			continue;
		key->spared = true;
		if (scheduled)
			(void) change_state(key, "scheduled", "retired", "key.spare");
		ereport(WARNING,
				(errmsg("key " INT64_FORMAT " of tenant \"%s\" is still needed by " INT64_FORMAT " values",
						key->key_id, key->tenant, swept->hits),
				 errdetail("The first is in %s.", swept->where),
				 errhint("Rotate the tenant, or seal values of columns that are not registered anew.")));
	}
	steps_commit();
}

/* Step a; those that are scheduled already begin anew. */
static void
schedule_keys(Death *death)
{
	for (int i = 0; i < death->nkeys; i++)
	{
		Dying	   *key = &death->keys[i];

		if (!key->spared &&
			!change_state(key, "retired", "scheduled", "key.schedule") &&
			!change_state(key, "scheduled", "scheduled", "key.schedule"))
			key->spared = true;
	}
	progress_phase(death->progress, "wait", 0);
	steps_commit();
}

/*
 * Throw (55000) unless every registered and protected column has a trigger that
 * fires always.
 */
static void
require_guards(void)
{
	ListCell   *cell;

	registry_check();
	foreach(cell, registry_tables())
	{
		Relation	rel = try_relation_open(lfirst_oid(cell), AccessShareLock);
		SealedTable *sealed = rel ? registry_read(rel) : NULL;

		for (int i = 0; sealed && i < sealed->ncolumns; i++)
		{
			if (!sealed->columns[i].guarded)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("a trigger of envelope on table %s is not ENABLE ALWAYS",
								sweep_table_name(rel)),
						 errhint("See envelope_doctor(); then call again.")));
		}
		if (rel)
			relation_close(rel, AccessShareLock);
	}
}

/* Step f; how many keys have died. */
static int
destroy_keys(Death *death)
{
	int			ndestroyed = 0;

	for (int i = 0; i < death->nkeys; i++)
	{
		Dying	   *key = &death->keys[i];

		if (key->spared)
			continue;
		require_guards();
		if (change_state(key, "scheduled", "destroyed", "key.destroy"))
			ndestroyed++;
		else
			ereport(WARNING,
					(errmsg("key " INT64_FORMAT " was changed meanwhile, and is left alone",
							key->key_id)));
		steps_commit();
	}
	return ndestroyed;
}

/* Be the only one to work on these tenants' keys, as far as possible. */
static int
lock_tenants(char **tenants, int ntenants, bool throw)
{
	int			nlocked = 0;

	for (int i = 0; i < ntenants; i++)
	{
		if (steps_lock_tenant(tenants[i], true))
			tenants[nlocked++] = tenants[i];
		else
			ereport(throw ? ERROR : WARNING,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("keys of tenant \"%s\" are being rotated or destroyed by another session",
							tenants[i])));
	}
	return nlocked;
}

/*
 * Destroy the retired data keys of tenants, from steps_begin on: all of them, or
 * (retention_min >= 0) those proven not to be needed so long ago.  Keys that are
 * still needed are named by a WARNING.  Returns how many were destroyed; tenants
 * is used up.
 */
int
death_of_retired_keys(char **tenants, int ntenants, int retention_min, bool throw)
{
	Death		death = {CurrentMemoryContext};
	int			ndestroyed = 0;
	int			nlocked;

	shmem_require();
	nlocked = lock_tenants(tenants, ntenants, throw);
	death.sweep = sweep_create(death.context);
	find_keys(&death, tenants, nlocked, retention_min);
	steps_commit();
	if (death.nkeys > 0)
	{
		char	   *proof;

		require_guards();
		death.progress = progress_insert("death", nlocked == 1 ? tenants[0] : NULL,
										 NULL, NULL, "look");
		steps_commit();
		scan_database(&death, "look");
		spare_found(&death, false);
		schedule_keys(&death);
		steps_await_transactions(tell_waiting, &death);
		scan_database(&death, "scan");
		spare_found(&death, true);
		progress_phase(death.progress, "wait", 0);
		steps_commit();
		steps_await_transactions(tell_waiting, &death);
		ndestroyed = destroy_keys(&death);

		proof = psprintf("{\"destroyed\": %d, \"columns\": [%s]}", ndestroyed,
						 death.sweep->columns.data);
		progress_finish(death.progress, ndestroyed == death.nkeys ? "done" : "incomplete",
						proof, NULL);
		steps_commit();
	}
	for (int i = 0; i < nlocked; i++)
		steps_unlock_tenant(tenants[i]);
	return ndestroyed;
}
