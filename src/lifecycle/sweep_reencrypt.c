/*-------------------------------------------------------------------------
 *
 * sweep_reencrypt.c
 *	  Sealing stored values anew, in place.
 *
 * Rows are re-encrypted by the executor's way of updating one row that logical
 * replication's apply worker goes as well: triggers, constraints, generated
 * columns and indexes are seen to, and no planner, rule or policy comes in
 * between.  A batch is a transaction: it reads the table from some block on, and
 * locks each row that has a value under one of the keys; a row that somebody
 * else has locked, or changed meanwhile, is left out and its block remembered.
 * So nobody is waited for and a newer edit always wins.  Where an index tells in
 * which blocks the tenants have rows, only these are read (sweep_index.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "crypto/secret.h"
#include "errors.h"
#include "keys/keyring.h"
#include "lifecycle/sweep.h"
#include "lifecycle/sweep_index.h"
#include "tables/registry.h"

/* A batch ends after so many blocks, so that no transaction takes long. */
#define BATCH_BLOCKS 4096

/* One table open for re-encryption */
typedef struct Rewriter
{
	Sweep	   *sweep;
	SealedTable *sealed;
	EState	   *estate;
	ResultRelInfo *result;
	EPQState	epqstate;
	TupleTableSlot *locked;
	TupleTableSlot *fresh;
	LockWaitPolicy wait;
} Rewriter;

/* Has the row a value under one of the keys? */
static bool
row_matches(Rewriter *work, TupleTableSlot *slot)
{
	for (int i = 0; i < work->sealed->ncolumns; i++)
	{
		if (sweep_key_of(work->sweep, slot, work->sealed->columns[i].column))
			return true;
	}
	return false;
}

/*
 * Seal a value anew for the tenant whose key it is under.
 */
static Datum
reseal(const SweepKey *key, const char *context, size_t context_len, Datum value)
{
	ValueLabel	label = {key->tenant, context, context_len};
	bytea	   *sealed = DatumGetByteaPP(value);
	SealedKind	kind;
	struct varlena *plaintext = keyring_open(&label, sealed, &kind);
	size_t		len = VARSIZE(plaintext) - VARHDRSZ;
	bytea	   *fresh = keyring_seal(&label, SEALED_GCM, kind, VARDATA(plaintext), len);

	secret_wipe(VARDATA(plaintext), len);
	pfree(plaintext);
	return PointerGetDatum(fresh);
}

/* Does an error concern the key or its tenant, and nothing else? */
static bool
is_about_key(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_ENVELOPE_DENIED ||
		sqlerrcode == ERRCODE_ENVELOPE_UNREACHABLE ||
		sqlerrcode == ERRCODE_ENVELOPE_DESTROYED ||
		sqlerrcode == ERRCODE_ENVELOPE_SUSPENDED;
}

/* A key whose values cannot all be re-encrypted is counted once. */
static void
count_trouble(Rewriter *work, const SweepKey *key)
{
	if (key->unreadable == 0 && key->kept == 0 && key->failed == NULL)
		work->sweep->ntrouble++;
}

/* Note that a value does not open, or that its key is of no use. */
static void
note_trouble(Rewriter *work, SweepKey *key, AttrNumber attnum, ItemPointer tid,
			 const ErrorData *error)
{
	MemoryContext context = work->sweep->context;

	count_trouble(work, key);
	if (error->sqlerrcode != ERRCODE_ENVELOPE_CORRUPT)
		key->failed = MemoryContextStrdup(context, error->message);
	else if (key->unreadable++ == 0)
		key->unreadable_where =
			MemoryContextStrdup(context, sweep_place(work->result->ri_RelationDesc,
													 attnum, tid));
}

/*
 * The same; false where the value does not open, or a tolerant sweep has to go
 * on without its key.  What throws that holds nothing that an abort would have
 * to release.
 */
static bool
try_reseal(Rewriter *work, SealedColumn *column, SweepKey *key,
		   TupleTableSlot *slot, Datum *value)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	size_t		len;
	const char *context = registry_context(column, slot, work->estate, &len);

	PG_TRY();
	{
		*value = reseal(key, context, len, *value);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (code != ERRCODE_ENVELOPE_CORRUPT &&
			!(work->sweep->tolerant && is_about_key(code)))
			PG_RE_THROW();
		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	if (error == NULL)
		return true;
	note_trouble(work, key, column->column, &slot->tts_tid, error);
	FreeErrorData(error);
	return false;
}

/*
 * Note which of the columns a trigger has left under the old key, or the row
 * as it was: to do it again would not help.  True if there are any.
 */
static bool
note_kept(Rewriter *work, const Bitmapset *columns)
{
	bool		suppressed = !ItemPointerIsValid(&work->fresh->tts_tid);
	bool		result = false;
	int			i = -1;

	while ((i = bms_next_member(columns, i)) >= 0)
	{
		AttrNumber	attnum = work->sealed->columns[i].column;
		SweepKey   *key = sweep_key_of(work->sweep,
									   suppressed ? work->locked : work->fresh, attnum);

		if (key == NULL)
			continue;
		count_trouble(work, key);
		if (key->kept++ == 0)
			key->kept_where =
				MemoryContextStrdup(work->sweep->context,
									sweep_place(work->result->ri_RelationDesc, attnum,
												&work->locked->tts_tid));
		key->rows--;
		result = true;
	}
	return result;
}

/*
 * Update a row.  The detail of a constraint that it violates shows the row, to
 * whoever rotates; they need not be allowed to read the table.
 */
static void
update_row(Rewriter *work)
{
	MemoryContext oldcontext = CurrentMemoryContext;

	PG_TRY();
	{
		ExecSimpleRelationUpdate(work->result, work->estate, &work->epqstate,
								 work->locked, work->fresh);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		FlushErrorState();
		error->detail = error->detail_log = NULL;
		ReThrowError(error);
	}
	PG_END_TRY();
}

/* Update a row that is locked. */
static void
rewrite_row(Rewriter *work)
{
	TupleTableSlot *locked = work->locked;
	TupleTableSlot *fresh = work->fresh;
	int			natts = locked->tts_tupleDescriptor->natts;
	MemoryContext oldcontext;
	Bitmapset  *changed = NULL;

	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(work->estate));
	ExecClearTuple(fresh);
	slot_getallattrs(locked);
	memcpy(fresh->tts_values, locked->tts_values, natts * sizeof(Datum));
	memcpy(fresh->tts_isnull, locked->tts_isnull, natts * sizeof(bool));
	for (int i = 0; i < work->sealed->ncolumns; i++)
	{
		SealedColumn *column = &work->sealed->columns[i];
		SweepKey   *key = sweep_key_of(work->sweep, locked, column->column);

		if (key == NULL ||
			!try_reseal(work, column, key, locked, &fresh->tts_values[column->column - 1]))
			continue;
		key->rows++;
		changed = bms_add_member(changed, i);
	}
	ExecStoreVirtualTuple(fresh);
	if (changed)
	{
		/* What triggers keep from row to row is of the statement. */
		MemoryContextSwitchTo(work->estate->es_query_cxt);
		update_row(work);
		MemoryContextSwitchTo(GetPerTupleMemoryContext(work->estate));
		if (!note_kept(work, changed))
			work->sweep->rows++;
	}
	MemoryContextSwitchTo(oldcontext);
}

/* Come back to a block. */
static void
remember_skipped(Rewriter *work, SweepTable *table, BlockNumber block)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(work->sweep->context);

	table->skipped = bms_add_member(table->skipped, block / SWEEP_UNIT_BLOCKS);
	MemoryContextSwitchTo(oldcontext);
}

/* Who had a row locked, where it was one and the row tells; for the progress */
static TransactionId
locker_of(TupleTableSlot *slot, const TM_FailureData *failure)
{
	if (!TTS_IS_BUFFERTUPLE(slot) ||
		(((BufferHeapTupleTableSlot *) slot)->base.tuple->t_data->t_infomask & HEAP_XMAX_IS_MULTI))
		return InvalidTransactionId;
	return failure->xmax;
}

/*
 * Lock the row that a scan has found and re-encrypt it.  False where somebody
 * else has it, or has changed it: then its place is remembered.
 */
static bool
take_row(Rewriter *work, SweepTable *table, TupleTableSlot *slot)
{
	Relation	rel = work->result->ri_RelationDesc;
	bool		blocks = work->wait == LockWaitBlock;
	ItemPointerData tid = slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(rel, &tid, work->estate->es_snapshot, work->locked,
							  work->estate->es_output_cid,
							  LockTupleNoKeyExclusive, work->wait,
							  blocks && !IsolationUsesXactSnapshot() ?
							  TUPLE_LOCK_FLAG_FIND_LAST_VERSION : 0, &failure);
	switch (result)
	{
		case TM_Ok:
			if (!failure.traversed || row_matches(work, work->locked))
				rewrite_row(work);
			return true;
		case TM_Updated:
			if (blocks)
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access due to concurrent update")));
			remember_skipped(work, table, ItemPointerGetBlockNumber(&slot->tts_tid));
			if (!ItemPointerIndicatesMovedPartitions(&failure.ctid))
				remember_skipped(work, table, ItemPointerGetBlockNumber(&failure.ctid));
			return false;
		case TM_WouldBlock:
			remember_skipped(work, table, ItemPointerGetBlockNumber(&slot->tts_tid));
			work->sweep->skipped_for = locker_of(slot, &failure);
			return false;
		default:
			return false;		/* deleted; there is nothing to do */
	}
}

/* Which columns updates change */
static Bitmapset *
updated_columns(const SealedTable *sealed)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < sealed->ncolumns; i++)
		columns = bms_add_member(columns, sealed->columns[i].column -
								 FirstLowInvalidHeapAttributeNumber);
	return columns;
}

static void
open_rewriter(Rewriter *work, Relation rel)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

	work->estate = estate;
	executor_state_of_relation(estate, RelationGetRelid(rel), rel->rd_rel->relkind,
							   updated_columns(work->sealed));
	estate->es_snapshot = GetActiveSnapshot();
	estate->es_output_cid = GetCurrentCommandId(true);
	work->result = makeNode(ResultRelInfo);
	ExecInitResultRelation(estate, work->result, 1);
	ExecOpenIndices(work->result, false);
	executor_recheck_init(&work->epqstate, estate);
	work->locked = table_slot_create(rel, &estate->es_tupleTable);
	work->fresh = ExecInitExtraTupleSlot(estate, RelationGetDescr(rel), &TTSOpsVirtual);
	AfterTriggerBeginQuery();
	MemoryContextSwitchTo(oldcontext);
}

static void
close_rewriter(Rewriter *work)
{
	EState	   *estate = work->estate;

	AfterTriggerEndQuery(estate);
	EvalPlanQualEnd(&work->epqstate);
	ExecResetTupleTable(estate->es_tupleTable, false);
	ExecCloseResultRelations(estate);
	ExecCloseRangeTableRelations(estate);
	FreeExecutorState(estate);
}

/*
 * The next blocks that are to be looked at, at most BATCH_BLOCKS of them: from
 * *first up to, but not including, *end.  False where there are none left.
 */
static bool
next_blocks(const SweepTable *table, BlockNumber *first, BlockNumber *end)
{
	int			unit = table->next / SWEEP_UNIT_BLOCKS;
	int			next = unit;

	if (table->next >= table->end)
		return false;
	*first = table->next;
	*end = table->end - table->next > BATCH_BLOCKS ? table->next + BATCH_BLOCKS : table->end;
	if (!table->in_units)
		return true;

	if (!bms_is_member(unit, table->units))
	{
		next = unit = bms_next_member(table->units, unit);
		if (unit < 0)
			return false;
		*first = (BlockNumber) unit * SWEEP_UNIT_BLOCKS;
	}
	while (bms_is_member(next, table->units) &&
		   (next - unit) * SWEEP_UNIT_BLOCKS < BATCH_BLOCKS)
		next++;
	*end = (BlockNumber) Min((uint64) next * SWEEP_UNIT_BLOCKS, table->end);
	return *first < table->end;
}

/*
 * Re-encrypt rows of some blocks, until the sweep has done limit of them.  True
 * where it has: *end is then the block to go on with.
 */
static bool
rewrite_blocks(Rewriter *work, SweepTable *table, BlockNumber first,
			   BlockNumber *end, int64 limit)
{
	Sweep	   *sweep = work->sweep;
	Relation	rel = work->result->ri_RelationDesc;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData min;
	ItemPointerData max;
	TableScanDesc scan;
	bool		full = false;

	ItemPointerSet(&min, first, FirstOffsetNumber);
	ItemPointerSet(&max, *end - 1, MaxOffsetNumber);
	scan = table_beginscan_tidrange(rel, work->estate->es_snapshot, &min, &max);
	while (!full && table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		sweep->seen++;
		if (row_matches(work, slot))
		{
			(void) take_row(work, table, slot);
			ResetPerTupleExprContext(work->estate);
			if (sweep->rows >= limit)
			{
				/* What is left of this block is looked at again. */
				*end = ItemPointerGetBlockNumber(&slot->tts_tid);
				full = true;
			}
		}
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return full;
}

/*
 * Re-encrypt rows of a table from where the last batch ended: at most batch_size
 * of them, and of about BATCH_BLOCKS blocks; all, where the caller waits for
 * locked rows.
 */
static void
rewrite_batch(Rewriter *work, SweepTable *table, int batch_size)
{
	int64		limit = work->sweep->rows + batch_size;
	BlockNumber nblocks = 0;
	bool		full = false;

	while (!full && (work->wait == LockWaitBlock || nblocks < BATCH_BLOCKS))
	{
		BlockNumber first;
		BlockNumber end;

		if (!next_blocks(table, &first, &end))
			end = table->end;
		else
		{
			nblocks += end - first;
			full = rewrite_blocks(work, table, first, &end, limit);
		}
		table->next = end;
		if (end >= table->end)
			break;
	}
}

/* Begin a table: which of its blocks are to be looked at? */
static void
begin_table(Rewriter *work, SweepTable *table, Relation rel)
{
	Sweep	   *sweep = work->sweep;
	int64		nblocks = RelationGetNumberOfBlocks(rel);

	table->end = (BlockNumber) nblocks;
	if (!sweep->by_tenant || nblocks == 0)
		return;
	table->in_units = sweep_index_units(sweep, rel, work->sealed, &table->units);
	if (table->in_units && rel->rd_rel->reltuples > 0)
	{
		/* Of the rows only those of these blocks are going to be seen. */
		double		share = (double) bms_num_members(table->units) * SWEEP_UNIT_BLOCKS / nblocks;

		sweep->estimated -= (int64) (rel->rd_rel->reltuples * (1 - Min(share, 1)));
	}
}

/* Open a table and re-encrypt some or all of it; no snapshot may be active. */
static void
rewrite_table(Sweep *sweep, SweepTable *table, int batch_size, LockWaitPolicy wait)
{
	Relation	rel = try_relation_open(table->relid, RowExclusiveLock);
	Rewriter	work = {sweep, NULL};
	TableScope	scope;

	if (rel == NULL)
	{
		table->next = table->end = 0;	/* it was dropped */
		return;
	}
	work.wait = wait;
	work.sealed = registry_read(rel);
	if (work.sealed == NULL)
		table->next = table->end = 0;
	else
	{
		table_scope_begin(&scope, rel->rd_rel->relowner);
		PushActiveSnapshot(GetTransactionSnapshot());
		if (table->end == InvalidBlockNumber)
			begin_table(&work, table, rel);
		open_rewriter(&work, rel);
		rewrite_batch(&work, table, batch_size);
		close_rewriter(&work);
		PopActiveSnapshot();
		table_scope_end(&scope);
	}
	relation_close(rel, NoLock);
}

/*
 * Re-encrypt the next batch of a table.  False where the table is through;
 * sweep_again then says whether anything was left out.
 */
bool
sweep_batch(Sweep *sweep, SweepTable *table, int batch_size)
{
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "envelope batch",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(batch);

	rewrite_table(sweep, table, batch_size, LockWaitSkip);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(batch);
	return table->next < table->end;
}

/*
 * Begin a table anew with what was left out of it, since others had it locked
 * or changed it meanwhile.  False where nothing was.
 */
bool
sweep_again(SweepTable *table)
{
	int			last;

	if (table->skipped == NULL)
		return false;
	bms_free(table->units);
	table->units = table->skipped;
	table->skipped = NULL;
	table->in_units = true;
	table->next = 0;
	last = bms_prev_member(table->units, -1);
	table->end = (BlockNumber) Min((uint64) (last + 1) * SWEEP_UNIT_BLOCKS, MaxBlockNumber);
	return true;
}

/* Re-encrypt a table in the transaction that there is. */
void
sweep_whole(Sweep *sweep, SweepTable *table)
{
	rewrite_table(sweep, table, INT_MAX, LockWaitBlock);
}
