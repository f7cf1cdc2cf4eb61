/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Going through stored values: re-encrypting them, and looking for keys.
 *
 * Both take a set of keys, so that one pass over a table serves all tenants
 * that are due.
 *
 * Rows are re-encrypted in place, by the executor's way of updating one row
 * that logical replication's apply worker goes as well: triggers, constraints,
 * generated columns and indexes are seen to, and no planner, rule or policy
 * comes in between.  A batch is a transaction: it reads the table from some
 * block on, and locks each row that has a value under one of the keys; a row
 * that somebody else has locked, or changed meanwhile, is left out and its
 * block remembered.  So nobody is waited for and a newer edit always wins.
 *
 * Work on a table is done as its owner, in a security-restricted operation: an
 * expression over the row or a trigger of theirs can do no more than they may.
 * session_replication_role is replica, so that triggers of applications do not
 * fire; row_security is off, and FORCE ROW LEVEL SECURITY does not hold the
 * owner up.
 *
 * A scan looks at all rows under one snapshot, taken when the lock on the table
 * is held: ALTER TABLE may have rewritten it, and a row that moves between two
 * snapshots would be seen by neither.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "crypto/secret.h"
#include "errors.h"
#include "keys/catalog.h"
#include "keys/keyring.h"
#include "keys/store.h"
#include "lifecycle/sweep.h"
#include "tables/protection.h"
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
}			Rewriter;

/* An empty set, whose memory is in context */
Sweep *
sweep_create(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Sweep	   *sweep = palloc0(sizeof(Sweep));
	HASHCTL		ctl = {0};

	sweep->context = context;
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(SweepKey);
	ctl.hcxt = context;
	sweep->keys = hash_create("envelope sweep", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	initStringInfo(&sweep->columns);
	MemoryContextSwitchTo(oldcontext);
	return sweep;
}

/* Add a key of a tenant (UTF-8). */
void
sweep_add_key(Sweep * sweep, int64 key_id, const char *tenant)
{
	char	   *copy = MemoryContextStrdup(sweep->context, tenant);
	SweepKey   *key = hash_search(sweep->keys, &key_id, HASH_ENTER, NULL);

	memset((char *) key + sizeof(key->key_id), 0, sizeof(*key) - sizeof(key->key_id));
	key->tenant = copy;
}

/* The qualified name of a table, palloc'd */
char *
sweep_table_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/*
 * Become the owner of a table, see the file's header, until table_scope_end.
 */
void
table_scope_begin(TableScope * scope, Oid owner)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"session_replication_role", "replica"},
		{"row_security", "off"}
	};

	GetUserIdAndSecContext(&scope->user, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	scope->guc_level = NewGUCNestLevel();
	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
table_scope_end(TableScope * scope)
{
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->sec_context);
}

/*
 * The tables of registered columns, for one pass over them; in the sweep's
 * context.
 */
SweepTable *
sweep_tables(Sweep * sweep, int *ntables)
{
	List	   *relids = registry_tables();
	SweepTable *tables = MemoryContextAllocZero(sweep->context,
												sizeof(SweepTable) * Max(list_length(relids), 1));
	ListCell   *cell;

	*ntables = 0;
	sweep->seen = 0;
	sweep->estimated = 0;
	foreach(cell, relids)
	{
		SweepTable *table = &tables[(*ntables)++];
		Relation	rel = try_relation_open(lfirst_oid(cell), AccessShareLock);

		table->relid = lfirst_oid(cell);
		table->end = table->skipped_from = InvalidBlockNumber;
		if (rel == NULL)
			continue;
		if (rel->rd_rel->reltuples > 0)
			sweep->estimated += (int64) rel->rd_rel->reltuples;
		relation_close(rel, AccessShareLock);
	}
	return tables;
}

/*
 * Tell by a NOTICE which triggers of applications fire all the same: those that
 * are ENABLE ALWAYS or REPLICA.
 */
void
sweep_name_triggers(const SweepTable * tables, int ntables)
{
	for (int i = 0; i < ntables; i++)
	{
		Relation	rel = try_relation_open(tables[i].relid, AccessShareLock);

		if (rel == NULL)
			continue;
		for (int j = 0; rel->trigdesc && j < rel->trigdesc->numtriggers; j++)
		{
			const Trigger *trigger = &rel->trigdesc->triggers[j];

			if ((trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
				 trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA) &&
				TRIGGER_FOR_UPDATE(trigger->tgtype) &&
				trigger->tgfoid != protection_function(SEAL_FUNCTION) &&
				trigger->tgfoid != protection_function(SEAL_GUARD_FUNCTION))
				ereport(NOTICE,
						(errmsg("trigger \"%s\" of table %s fires for each row that is re-encrypted",
								trigger->tgname, sweep_table_name(rel)),
						 errdetail("It is ENABLE ALWAYS or REPLICA.")));
		}
		relation_close(rel, AccessShareLock);
	}
}

/*
 * The key of the set that a column's value is under; NULL where it is not, or
 * the key has turned out to be of no use.
 */
static SweepKey *
key_of(Sweep * sweep, TupleTableSlot *slot, AttrNumber attnum)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attnum, &isnull);
	int64		key_id;
	SweepKey   *key;

	if (isnull || !sealed_value_key(value, &key_id))
		return NULL;
	key = hash_search(sweep->keys, &key_id, HASH_FIND, NULL);
	return key && key->failed == NULL ? key : NULL;
}

/* Has the row a value under one of the keys? */
static bool
row_matches(Rewriter * work, TupleTableSlot *slot)
{
	for (int i = 0; i < work->sealed->ncolumns; i++)
	{
		if (key_of(work->sweep, slot, work->sealed->columns[i].column))
			return true;
	}
	return false;
}

/* The place of a value, for a message */
static char *
describe_place(Relation rel, AttrNumber attnum, ItemPointer tid)
{
	return psprintf("%s.%s, ctid (%u,%u)", sweep_table_name(rel),
					quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(rel),
														   attnum - 1)->attname)),
					ItemPointerGetBlockNumber(tid), ItemPointerGetOffsetNumber(tid));
}

/*
 * Seal a value anew for the tenant whose key it is under.
 */
static Datum
reseal(const SweepKey * key, const char *context, size_t context_len, Datum value)
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

/* Note that a value does not open, or that its key is of no use. */
static void
note_trouble(Rewriter * work, SweepKey * key, AttrNumber attnum, ItemPointer tid,
			 const ErrorData *error)
{
	MemoryContext context = work->sweep->context;

	if (key->unreadable == 0 && key->failed == NULL)
		work->sweep->ntrouble++;
	if (error->sqlerrcode != ERRCODE_ENVELOPE_CORRUPT)
		key->failed = MemoryContextStrdup(context, error->message);
	else if (key->unreadable++ == 0)
		key->unreadable_where =
			MemoryContextStrdup(context, describe_place(work->result->ri_RelationDesc,
														attnum, tid));
}

/*
 * The same; false where the value does not open, or a tolerant sweep has to go
 * on without its key.  What throws that holds nothing that an abort would have
 * to release.
 */
static bool
try_reseal(Rewriter * work, SealedColumn * column, SweepKey * key,
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

/* Update a row that is locked. */
static void
rewrite_row(Rewriter * work)
{
	TupleTableSlot *locked = work->locked;
	TupleTableSlot *fresh = work->fresh;
	int			natts = locked->tts_tupleDescriptor->natts;
	MemoryContext oldcontext;
	bool		changed = false;

	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(work->estate));
	ExecClearTuple(fresh);
	slot_getallattrs(locked);
	memcpy(fresh->tts_values, locked->tts_values, natts * sizeof(Datum));
	memcpy(fresh->tts_isnull, locked->tts_isnull, natts * sizeof(bool));
	for (int i = 0; i < work->sealed->ncolumns; i++)
	{
		SealedColumn *column = &work->sealed->columns[i];
		SweepKey   *key = key_of(work->sweep, locked, column->column);

		if (key == NULL ||
			!try_reseal(work, column, key, locked, &fresh->tts_values[column->column - 1]))
			continue;
		key->rows++;
		changed = true;
	}
	ExecStoreVirtualTuple(fresh);
	if (changed)
	{
		/* What triggers keep from row to row is of the statement. */
		MemoryContextSwitchTo(work->estate->es_query_cxt);
		ExecSimpleRelationUpdate(work->result, work->estate, &work->epqstate, locked, fresh);
		work->sweep->rows++;
	}
	MemoryContextSwitchTo(oldcontext);
}

/* Come back to a block. */
static void
remember_skipped(SweepTable * table, BlockNumber block)
{
	if (table->skipped_from == InvalidBlockNumber)
		table->skipped_from = table->skipped_to = block;
	table->skipped_from = Min(table->skipped_from, block);
	table->skipped_to = Max(table->skipped_to, block);
}

/*
 * Lock the row that a scan has found and re-encrypt it.  False where somebody
 * else has it, or has changed it: then its place is remembered.
 */
static bool
take_row(Rewriter * work, SweepTable * table, TupleTableSlot *slot)
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
			remember_skipped(table, ItemPointerGetBlockNumber(&slot->tts_tid));
			if (!ItemPointerIndicatesMovedPartitions(&failure.ctid))
				remember_skipped(table, ItemPointerGetBlockNumber(&failure.ctid));
			return false;
		case TM_WouldBlock:
			remember_skipped(table, ItemPointerGetBlockNumber(&slot->tts_tid));
			work->sweep->skipped++;
			return false;
		default:
			return false;		/* deleted; there is nothing to do */
	}
}

/* Which columns updates change */
static Bitmapset *
updated_columns(const SealedTable * sealed)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < sealed->ncolumns; i++)
		columns = bms_add_member(columns, sealed->columns[i].column -
								 FirstLowInvalidHeapAttributeNumber);
	return columns;
}

static void
open_rewriter(Rewriter * work, Relation rel)
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
close_rewriter(Rewriter * work)
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
 * Re-encrypt rows of a table from block "next" on: at most batch_size of them,
 * and at most BATCH_BLOCKS blocks (both unbounded where the caller waits for
 * locked rows).
 */
static void
rewrite_blocks(Rewriter * work, SweepTable * table, Relation rel, int batch_size)
{
	Sweep	   *sweep = work->sweep;
	TupleTableSlot *slot;
	ItemPointerData min;
	ItemPointerData max;
	TableScanDesc scan;
	int64		limit = sweep->rows + batch_size;
	BlockNumber last = table->end;
	bool		full = false;

	if (work->wait != LockWaitBlock && table->end - table->next > BATCH_BLOCKS)
		last = table->next + BATCH_BLOCKS;
	ItemPointerSet(&min, table->next, FirstOffsetNumber);
	ItemPointerSet(&max, last - 1, MaxOffsetNumber);
	slot = table_slot_create(rel, NULL);
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
				last = ItemPointerGetBlockNumber(&slot->tts_tid);
				full = true;
			}
		}
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table->next = last;
}

/* Open a table and re-encrypt some or all of it; no snapshot may be active. */
static void
rewrite_table(Sweep * sweep, SweepTable * table, int batch_size, LockWaitPolicy wait)
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
	if (table->end == InvalidBlockNumber)
		table->end = RelationGetNumberOfBlocks(rel);
	if (work.sealed == NULL || table->next >= table->end)
		table->next = table->end;
	else
	{
		table_scope_begin(&scope, rel->rd_rel->relowner);
		PushActiveSnapshot(GetTransactionSnapshot());
		open_rewriter(&work, rel);
		rewrite_blocks(&work, table, rel, batch_size);
		close_rewriter(&work);
		PopActiveSnapshot();
		table_scope_end(&scope);
	}
	relation_close(rel, NoLock);
}

/*
 * Re-encrypt the next batch of a table.  False where the table is through:
 * table->skipped_from then says whether anything was left out.
 */
bool
sweep_batch(Sweep * sweep, SweepTable * table, int batch_size)
{
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "envelope batch",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(batch);

	rewrite_table(sweep, table, batch_size, LockWaitSkip);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(batch);
	return table->next < table->end;
}

/* Re-encrypt a table in the transaction that there is. */
void
sweep_whole(Sweep * sweep, SweepTable * table)
{
	rewrite_table(sweep, table, INT_MAX, LockWaitBlock);
}

/* Nothing has been found yet. */
void
sweep_begin_scan(Sweep * sweep)
{
	HASH_SEQ_STATUS status;
	SweepKey   *key;

	sweep->hits = 0;
	resetStringInfo(&sweep->columns);
	hash_seq_init(&status, sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		key->hits = 0;
		key->where = NULL;
	}
}

/* Note what was scanned of a column. */
static void
note_column(Sweep * sweep, Relation rel, AttrNumber attnum, bool guarded, int64 rows)
{
	StringInfo	columns = &sweep->columns;

	appendStringInfo(columns, "%s{\"table\": ", columns->len > 0 ? ", " : "");
	escape_json(columns, sweep_table_name(rel));
	appendStringInfoString(columns, ", \"column\": ");
	escape_json(columns, NameStr(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname));
	appendStringInfo(columns, ", \"rows\": " INT64_FORMAT ", \"guarded\": %s}",
					 rows, guarded ? "true" : "false");
}

/* Which columns of a table are to be scanned */
static int
scan_columns(Relation rel, SweepScope scope, AttrNumber *columns, bool *guarded)
{
	TupleDesc	desc = RelationGetDescr(rel);
	SealedTable *sealed = registry_read(rel);
	int			ncolumns = 0;

	for (int attnum = 1; attnum <= desc->natts; attnum++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, attnum - 1);
		bool		wanted = scope == SWEEP_ALL_BYTEA;

		if (attr->attisdropped || getBaseType(attr->atttypid) != BYTEAOID)
			continue;
		guarded[ncolumns] = false;
		for (int i = 0; sealed && i < sealed->ncolumns; i++)
		{
			if (sealed->columns[i].column != attnum)
				continue;
			wanted = true;
			guarded[ncolumns] = sealed->columns[i].guarded;
		}
		if (wanted)
			columns[ncolumns++] = attnum;
	}
	return ncolumns;
}

/* Look at every row of a table; no snapshot may be active. */
static int64
scan_rows(Sweep * sweep, Relation rel, int ncolumns, const AttrNumber *columns)
{
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "envelope scan",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext;
	int64		nrows = 0;

	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	scan = table_beginscan(rel, snapshot, 0, NULL);
	oldcontext = MemoryContextSwitchTo(row_context);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		nrows++;
		for (int i = 0; i < ncolumns; i++)
		{
			SweepKey   *key = key_of(sweep, slot, columns[i]);

			if (key == NULL)
				continue;
			sweep->hits++;
			if (key->hits++ == 0)
				key->where = MemoryContextStrdup(sweep->context,
												 describe_place(rel, columns[i], &slot->tts_tid));
		}
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(row_context);
	table_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	return nrows;
}

/*
 * Look for the keys in a table, in a transaction of its own.  What was scanned
 * is noted, and hits are counted by key.
 */
void
sweep_scan(Sweep * sweep, Oid relid, SweepScope scope)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	AttrNumber *columns;
	bool	   *guarded;
	int			ncolumns;
	int64		nrows;

	if (rel == NULL)
		return;
	columns = palloc(sizeof(AttrNumber) * (RelationGetDescr(rel)->natts + 1));
	guarded = palloc(sizeof(bool) * (RelationGetDescr(rel)->natts + 1));
	ncolumns = scan_columns(rel, scope, columns, guarded);
	if (ncolumns > 0)
	{
		nrows = scan_rows(sweep, rel, ncolumns, columns);
		for (int i = 0; i < ncolumns; i++)
			note_column(sweep, rel, columns[i], guarded[i], nrows);
	}
	pfree(columns);
	pfree(guarded);
	relation_close(rel, AccessShareLock);
}

/*
 * The tables that a scan has to look at, palloc'd: those with registered
 * columns, or all that could hold bytes.
 */
Oid *
sweep_scan_tables(SweepScope scope, int *ntables)
{
	List	   *relids = NIL;
	ListCell   *cell;
	Oid		   *tables;

	if (scope == SWEEP_REGISTERED)
		relids = registry_tables();
	else
	{
		Relation	rel = table_open(RelationRelationId, AccessShareLock);
		SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		Oid			own = get_namespace_oid(ENVELOPE_SCHEMA, true);
		HeapTuple	tuple;

		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_class class = (Form_pg_class) GETSTRUCT(tuple);

			if ((class->relkind == RELKIND_RELATION || class->relkind == RELKIND_MATVIEW) &&
				class->oid >= FirstNormalObjectId &&
				class->relnamespace != own &&
				class->relpersistence != RELPERSISTENCE_TEMP)
				relids = lappend_oid(relids, class->oid);
		}
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}

	tables = palloc(sizeof(Oid) * Max(list_length(relids), 1));
	*ntables = 0;
	foreach(cell, relids)
		tables[(*ntables)++] = lfirst_oid(cell);
	list_free(relids);
	return tables;
}
