/*-------------------------------------------------------------------------
 *
 * rewrite.c
 *	  Sealing, or opening, every row of a table into new files.
 *
 * The rows are written into a new heap that takes the place of the old one, as
 * ALTER TABLE does when it rewrites a table: no plaintext is left in the old
 * files, which go at commit, nor in dead rows of the new ones.  The planner's
 * statistics of the columns go too (samples.c).
 *
 * As with ALTER TABLE, transactions whose snapshot is older see the table empty
 * if they had not looked at it before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "commands/cluster.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "keys/keyring.h"
#include "tables/protect.h"
#include "tables/seal.h"
#include "tables/value.h"

/* Progress is told every so many rows */
#define ROWS_PER_NOTICE 100000

/* The row at which a scan is, for the context of an error */
typedef struct RowPosition
{
	Relation	rel;
	TupleTableSlot *slot;
} RowPosition;

static void
describe_row(void *arg)
{
	RowPosition *position = arg;

	if (ItemPointerIsValid(&position->slot->tts_tid))
		errcontext("row with ctid (%u,%u) of table \"%s\"",
				   ItemPointerGetBlockNumberNoCheck(&position->slot->tts_tid),
				   ItemPointerGetOffsetNumberNoCheck(&position->slot->tts_tid),
				   RelationGetRelationName(position->rel));
}

/* Does a row have a value in a column that is to be protected? */
static bool
has_value(const ProtectPlan *plan, Relation rel, TupleTableSlot *slot)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new &&
			!slot_attisnull(slot, get_attnum(RelationGetRelid(rel), column->carrier)))
			return true;
	}
	return false;
}

/*
 * Check that the rows of one table can be sealed: that each that has a value
 * has a tenant, and each tenant a key that can be had.
 */
static void
check_table(const ProtectPlan *plan, Relation rel, HTAB *tenants)
{
	AttrNumber	tenant = get_attnum(RelationGetRelid(rel), plan->tenant);
	Oid			type = get_atttype(RelationGetRelid(rel), tenant);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "envelope row",
													  ALLOCSET_DEFAULT_SIZES);
	RowPosition position = {rel, slot};
	ErrorContextCallback callback = {error_context_stack, describe_row, &position};

	error_context_stack = &callback;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(row_context);
		char		name[TENANT_MAX_BYTES + 1] = {0};
		ValueLabel	label = {name, "", 0};
		Datum		value;
		bool		isnull;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (has_value(plan, rel, slot))
		{
			value = slot_getattr(slot, tenant, &isnull);
			if (isnull)
				ereport(ERROR,
						(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("column \"%s\" is null beside a value to be protected",
								plan->tenant),
						 errhint("Every row with such a value needs a tenant, whose key seals it.")));
			strlcpy(name, value_tenant(type, value), sizeof(name));
			(void) hash_search(tenants, name, HASH_FIND, &found);
			if (!found)
			{
				label.tenant = value_tenant(type, value);
				(void) keyring_seal(&label, SEALED_GCM, KIND_TEXT, "", 0);
				(void) hash_search(tenants, name, HASH_ENTER, NULL);
			}
		}
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(row_context);
	}
	error_context_stack = callback.previous;
	MemoryContextDelete(row_context);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

static bool
has_rows_of_its_own(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_RELATION;
}

/*
 * Check that all rows can be sealed, before anything is changed.  Throws what
 * sealing them would throw; the context names the row.
 */
void
rewrite_check(const ProtectPlan *plan)
{
	HASHCTL		ctl = {0};
	HTAB	   *tenants;
	ListCell   *cell;

	ctl.keysize = TENANT_MAX_BYTES + 1;
	ctl.entrysize = TENANT_MAX_BYTES + 1;
	ctl.hcxt = CurrentMemoryContext;
	tenants = hash_create("envelope tenants of a table", 256, &ctl,
						  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	foreach(cell, plan->relids)
	{
		Relation	rel;

		if (!has_rows_of_its_own(lfirst_oid(cell)))
			continue;
		rel = table_open(lfirst_oid(cell), NoLock);
		check_table(plan, rel, tenants);
		table_close(rel, NoLock);
	}
	hash_destroy(tenants);
}

/* Put NULL where a dropped column is. */
static void
forget_dropped(TupleTableSlot *slot)
{
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		if (TupleDescAttr(slot->tts_tupleDescriptor, i)->attisdropped)
			slot->tts_isnull[i] = true;
	}
}

/* Copy all rows of a table into another, sealed or opened; returns how many. */
static uint64
copy_rows(Relation from, Relation to, bool back, uint64 done)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(from, snapshot, 0, NULL);
	TupleTableSlot *source = table_slot_create(from, NULL);
	TupleTableSlot *target = table_slot_create(to, NULL);
	BulkInsertState bulk = GetBulkInsertState();
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "envelope row",
													  ALLOCSET_DEFAULT_SIZES);
	RowPosition position = {from, source};
	ErrorContextCallback callback = {error_context_stack, describe_row, &position};
	TupleTableSlot *virtual = MakeSingleTupleTableSlot(RelationGetDescr(to), &TTSOpsVirtual);
	int			natts = RelationGetDescr(from)->natts;

	error_context_stack = &callback;
	while (table_scan_getnextslot(scan, ForwardScanDirection, source))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(row_context);

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(source);
		ExecClearTuple(virtual);
		memcpy(virtual->tts_values, source->tts_values, natts * sizeof(Datum));
		memcpy(virtual->tts_isnull, source->tts_isnull, natts * sizeof(bool));
		forget_dropped(virtual);
		if (back)
			seal_open_row(from, virtual->tts_values, virtual->tts_isnull);
		else
			seal_stored_row(from, virtual->tts_values, virtual->tts_isnull);
		ExecStoreVirtualTuple(virtual);
		ExecCopySlot(target, virtual);
		table_tuple_insert(to, target, GetCurrentCommandId(true),
						   TABLE_INSERT_SKIP_FSM, bulk);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(row_context);
		if (++done % ROWS_PER_NOTICE == 0)
			ereport(NOTICE,
					(errmsg("%s " UINT64_FORMAT " rows", back ? "opened" : "sealed", done)));
	}
	error_context_stack = callback.previous;
	FreeBulkInsertState(bulk);
	table_finish_bulk_insert(to, TABLE_INSERT_SKIP_FSM);
	MemoryContextDelete(row_context);
	ExecDropSingleTupleTableSlot(virtual);
	ExecDropSingleTupleTableSlot(target);
	ExecDropSingleTupleTableSlot(source);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return done;
}

/* Rewrite one table that has rows of its own; returns how many there are. */
static uint64
rewrite_one(Oid relid, bool back, uint64 done)
{
	Relation	from = table_open(relid, NoLock);
	char		persistence = from->rd_rel->relpersistence;
	Oid			to_relid;
	Relation	to;

	CheckTableNotInUse(from, "envelope_protect");
	to_relid = make_new_heap(relid, from->rd_rel->reltablespace, from->rd_rel->relam,
							 persistence, AccessExclusiveLock);
	to = table_open(to_relid, NoLock);
	done = copy_rows(from, to, back, done);
	table_close(to, NoLock);
	table_close(from, NoLock);

	finish_heap_swap(relid, to_relid, false, false, true, true,
					 RecentXmin, ReadNextMultiXactId(), persistence);
	return done;
}

/*
 * Seal every row of a table and its partitions, or open it, in new files.  The
 * trigger is there, the columns' constraints and indexes are not.
 */
void
rewrite_table(const ProtectPlan *plan, bool back)
{
	uint64		done = 0;
	ListCell   *cell;
	ListCell   *lc;

	CommandCounterIncrement();
	foreach(cell, plan->relids)
	{
		Oid			relid = lfirst_oid(cell);

		if (has_rows_of_its_own(relid))
			done = rewrite_one(relid, back, done);
		foreach(lc, plan->columns)
		{
			ProtectColumn *column = lfirst(lc);

			if (column->is_new)
				RemoveStatistics(relid, get_attnum(relid, back ? column->sidecar : column->carrier));
		}
	}
	CommandCounterIncrement();
	if (done > 0)
		ereport(NOTICE,
				(errmsg("%s " UINT64_FORMAT " rows of table \"%s\"",
						back ? "opened" : "sealed", done, plan->name)));
}
