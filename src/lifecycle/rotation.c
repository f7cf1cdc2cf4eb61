/*-------------------------------------------------------------------------
 *
 * rotation.c
 *	  New data keys for tenants, and what was sealed under the old ones.
 *
 * A live rotation goes through these steps, each in transactions of its own:
 *
 *	1. a new key becomes the active one, the old one retires (flip.c);
 *	2. the values under retired keys are re-encrypted, in batches
 *	   (sweep_reencrypt.c);
 *	3. when that is done, every transaction that runs is waited for (steps.c);
 *	4. all rows of all columns are looked at, or indexes of them asked, by key
 *	   id.  Where one is still under an old key, it goes on at 2;
 *	5. the proof is recorded.
 *
 * A transaction that began before the commit of 1 may seal under the old key
 * until it ends; one that began before the end of 2 may copy a value that it
 * read before, as who saves a whole row does.  To have waited after 1 alone is
 * not enough.
 *
 * The proof says what is true: at the snapshot of each table's scan no committed
 * row of the listed columns was under the old keys, and every transaction that
 * could still seal under them had ended before.  Bytes that a client holds can
 * come back as long as the old key is only retired, and stay readable.
 *
 * Every step can be done again.  Where a rotation has begun and not ended, its
 * row in envelope.rotations says so, and the next call goes on with it at step
 * 2, without another key: a wait is no state.
 *
 * A pass takes all tenants that are due: their keys are one set, and one row of
 * envelope.rotations, the lead, tells the progress of all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "keys/tenant.h"
#include "lifecycle/flip.h"
#include "lifecycle/pass.h"
#include "lifecycle/rotation.h"
#include "lifecycle/steps.h"
#include "lifecycle/sweep.h"
#include "shmem.h"
#include "tables/registry.h"

/* How often to look for locked rows again */
#define RETRY_MIN_MS	20
#define RETRY_MAX_MS	1000

/*
 * So often an index on tenants may say which blocks to re-encrypt, before all
 * are looked at.
 */
#define INDEX_ROUNDS	2

/*
 * Throw where a tenant's values cannot be re-encrypted: VE001, VE005, VE006.
 */
void
rotation_check_tenant(const char *tenant)
{
	if (tenant_state_of_living(tenant) != TENANT_ACTIVE)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_SUSPENDED),
				 errmsg("tenant \"%s\" is suspended", tenant),
				 errdetail("Its values cannot be opened, and so not be re-encrypted.")));
}

/* Told by the wait for other transactions */
static void
tell_waiting(const char *whom, void *arg)
{
	Pass	   *pass = arg;

	pass_tell(pass, whom);
	if (whom)
		ereport(NOTICE,
				(errmsg("waiting for %s to end its transaction", whom)));
}

/* Told by the wait for standbys */
static void
tell_lagging(const char *whom, void *arg)
{
	pass_tell(arg, whom);
	if (whom)
		ereport(NOTICE,
				(errmsg("waiting for %s to catch up", whom)));
}

/* The name of a table for the progress, in the pass's context */
static char *
name_table(Pass *pass, Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	char	   *name = NULL;

	if (rel)
	{
		name = MemoryContextStrdup(pass->context, sweep_table_name(rel));
		relation_close(rel, AccessShareLock);
	}
	return name;
}

/* Re-encrypt a table, or what is left of it, in batches. */
static void
reencrypt_table(Pass *pass, SweepTable *table)
{
	bool		more;

	pass->table = name_table(pass, table->relid);
	do
	{
		steps_throttle(tell_lagging, pass);
		more = sweep_batch(pass->sweep, table, pass->pace->batch_size);
		pass_tell(pass, NULL);
		steps_commit();
		steps_sleep(pass->pace->pause_ms);
	} while (more);
}

/* Tell who keeps rows from being re-encrypted. */
static void
tell_locked(Pass *pass)
{
	TransactionId xid = pass->sweep->skipped_for;
	char	   *whom = TransactionIdIsValid(xid) ? steps_describe_xid(xid) : NULL;

	pass->sweep->skipped_for = InvalidTransactionId;
	pass_tell(pass, whom ? whom : "rows that other transactions have locked");
}

/*
 * Step 2: all tables, and then, as long as there are any, the rows that others
 * had locked.
 */
static void
reencrypt_tables(Pass *pass)
{
	int			ntables;
	SweepTable *tables = sweep_tables(pass->sweep, &ntables);
	long		ms = RETRY_MIN_MS;
	bool		again;

	pass_enter_phase(pass, "reencrypt");
	for (int i = 0; i < ntables; i++)
		reencrypt_table(pass, &tables[i]);

	do
	{
		again = false;
		for (int i = 0; i < ntables; i++)
		{
			SweepTable *table = &tables[i];

			if (!sweep_again(table))
				continue;
			again = true;
			pass->table = name_table(pass, table->relid);
			tell_locked(pass);
			steps_commit();
			steps_sleep(ms);
			steps_commit();
			reencrypt_table(pass, table);
		}
		ms = Min(ms * 2, RETRY_MAX_MS);
	} while (again);
	pfree(tables);
}

/* Step 4: is no value left under an old key? */
static bool
scan_tables(Pass *pass)
{
	int			ntables;
	MemoryContext oldcontext = MemoryContextSwitchTo(pass->context);
	Oid		   *tables = sweep_scan_tables(SWEEP_REGISTERED, &ntables);

	MemoryContextSwitchTo(oldcontext);
	sweep_begin_scan(pass->sweep);
	pass_enter_phase(pass, "scan");
	for (int i = 0; i < ntables; i++)
	{
		pass->table = name_table(pass, tables[i]);
		pass_tell(pass, NULL);
		steps_commit();
		sweep_scan(pass->sweep, tables[i], SWEEP_REGISTERED);
		steps_commit();
	}
	pfree(tables);
	pass->table = NULL;
	return pass->sweep->hits == 0;
}

/*
 * Rotate tenants, from steps_begin on; those that have a rotation unfinished go
 * on with it.  Returns how many were rotated and proven.
 */
int
rotation_of_tenants(char **tenants, int ntenants, const RotationPace *pace,
					RotationTrouble trouble)
{
	Pass		pass = {CurrentMemoryContext};

	shmem_require();
	pass.pace = pace;
	pass.told_at = GetCurrentTimestamp();
	pass_lock(&pass, tenants, ntenants, trouble);
	registry_check();
	pass_begin(&pass, trouble);
	steps_commit();
	if (pass.nrotations == 0)
		return 0;

	pass_gather_keys(&pass);
	pass.sweep->tolerant = trouble == TROUBLE_WARN;
	{
		int			ntables;
		SweepTable *tables = sweep_tables(pass.sweep, &ntables);

		sweep_name_triggers(tables, ntables);
		if (ntables == 0)
			ereport(NOTICE,
					(errmsg("no table is protected, and no column registered")));
	}
	steps_commit();
	for (int round = 1;; round++)
	{
		pass.sweep->by_tenant = round <= INDEX_ROUNDS;
		reencrypt_tables(&pass);
		if (pass.sweep->ntrouble > 0)
		{
			if (trouble == TROUBLE_THROW)
				pass_report_trouble(&pass);
			pass_leave_out_trouble(&pass);
			if (pass.nrotations == 0)
				return 0;
		}
		pass_enter_phase(&pass, "wait");
		steps_await_transactions(tell_waiting, &pass);
		if (scan_tables(&pass))
			break;
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " values under retired keys were written meanwhile; once more",
						pass.sweep->hits)));
	}
	pass_record_proof(&pass);
	return pass.nrotations;
}

/*
 * Rotate a tenant in the caller's transaction: new key, and, unless only that is
 * wanted, all its values re-encrypted.  Waits for rows that others have locked,
 * as any UPDATE does.  Gives no proof: others may still seal under the old key.
 * The new key's id.
 */
int64
rotation_in_transaction(const char *tenant, bool reencrypt)
{
	Flip		flip = {pstrdup(tenant)};
	Pass		pass = {CurrentMemoryContext};
	OwnerScope	scope;
	SweepTable *tables;
	int			ntables;
	int64		id;

	shmem_require();
	store_refuse_serializable("rotate a key");
	rotation_check_tenant(tenant);
	if (!steps_lock_tenant(tenant, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("keys of tenant \"%s\" are being rotated or destroyed by another session",
						tenant),
				 errhint("See the view envelope.rotation_progress.")));
	registry_check();

	store_begin(&scope);
	flip.kek = pass_kek_of(tenant);
	flip_keys(&flip, 1, true);
	id = pass_record(tenant, flip.key_id, reencrypt ? "unproven" : "reencrypt",
					 reencrypt, NULL);
	pass_audit_begin(tenant, flip.kek, flip.key_id);
	store_end(&scope);
	if (!reencrypt)
		return flip.key_id;

	CommandCounterIncrement();
	pass.rotations = palloc0(sizeof(Rotation));
	pass.rotations[0].tenant = flip.tenant;
	pass.nrotations = 1;
	pass_gather_keys(&pass);
	tables = sweep_tables(pass.sweep, &ntables);
	sweep_name_triggers(tables, ntables);
	for (int i = 0; i < ntables; i++)
		sweep_whole(pass.sweep, &tables[i]);
	if (pass.sweep->ntrouble > 0)
		pass_report_trouble(&pass);

	store_begin(&scope);
	{
		StoreParam	params[] = {
			{INT8OID, Int64GetDatum(id), false},
			{INT8OID, Int64GetDatum(pass.sweep->rows), false}
		};

		(void) store_execute("UPDATE envelope.rotations SET rows_reencrypted = $2"
							 " WHERE rotation_id = $1", lengthof(params), params);
	}
	store_end(&scope);
	return flip.key_id;
}
