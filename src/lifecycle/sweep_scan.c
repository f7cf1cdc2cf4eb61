/*-------------------------------------------------------------------------
 *
 * sweep_scan.c
 *	  Looking whether any stored value is under a key.
 *
 * A scan looks at all rows under one snapshot, taken when the lock on the table
 * is held: ALTER TABLE may have rewritten it, and a row that moves between two
 * snapshots would be seen by neither.  Where indexes can tell under which keys
 * all its columns are they are asked instead, under that snapshot
 * (sweep_index.c); but for a key that is to die, the rows themselves are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "keys/catalog.h"
#include "lifecycle/sweep.h"
#include "lifecycle/sweep_index.h"
#include "tables/registry.h"

/* Nothing has been found yet. */
void
sweep_begin_scan(Sweep *sweep)
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

/*
 * Note what was scanned of a column: how many rows, or (not NULL) which index
 * told of all of them.
 */
static void
note_column(Sweep *sweep, Relation rel, AttrNumber attnum, bool guarded, int64 rows,
			const char *index)
{
	StringInfo	columns = &sweep->columns;

	appendStringInfo(columns, "%s{\"table\": ", columns->len > 0 ? ", " : "");
	escape_json(columns, sweep_table_name(rel));
	appendStringInfoString(columns, ", \"column\": ");
	escape_json(columns, NameStr(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname));
	if (index)
	{
		appendStringInfoString(columns, ", \"index\": ");
		escape_json(columns, index);
	}
	else
		appendStringInfo(columns, ", \"rows\": " INT64_FORMAT, rows);
	appendStringInfo(columns, ", \"guarded\": %s}", guarded ? "true" : "false");
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

/* Count a column's value, where it is under a key of the sweep. */
static void
look_at_value(Sweep *sweep, Relation rel, TupleTableSlot *slot, void *arg)
{
	AttrNumber	attnum = *(AttrNumber *) arg;
	SweepKey   *key = sweep_key_of(sweep, slot, attnum);

	if (key == NULL)
		return;
	sweep->hits++;
	if (key->hits++ == 0)
		key->where = MemoryContextStrdup(sweep->context,
										 sweep_place(rel, attnum, &slot->tts_tid));
}

/* Look at every row of a table; how many there are. */
static int64
scan_rows(Sweep *sweep, Relation rel, int ncolumns, AttrNumber *columns)
{
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "envelope scan",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext;
	int64		nrows = 0;

	oldcontext = MemoryContextSwitchTo(row_context);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		nrows++;
		for (int i = 0; i < ncolumns; i++)
			look_at_value(sweep, rel, slot, &columns[i]);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(row_context);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return nrows;
}

/* Have indexes tell; false where not every column has one. */
static bool
ask_indexes(Sweep *sweep, Relation rel, int ncolumns, AttrNumber *columns,
			const bool *guarded)
{
	Relation   *indexes = palloc(sizeof(Relation) * ncolumns);
	int			nindexes = 0;
	bool		all;

	while (nindexes < ncolumns &&
		   (indexes[nindexes] = sweep_index_of_keys(rel, columns[nindexes])) != NULL)
		nindexes++;
	all = nindexes == ncolumns;
	for (int i = 0; i < nindexes; i++)
	{
		if (all)
		{
			sweep_index_look(sweep, rel, indexes[i], look_at_value, &columns[i]);
			note_column(sweep, rel, columns[i], guarded[i], 0,
						RelationGetRelationName(indexes[i]));
		}
		index_close(indexes[i], NoLock);
	}
	pfree(indexes);
	return all;
}

/*
 * Look for the keys in a table, in a transaction of its own; no snapshot may be
 * active.  What was scanned is noted, and hits are counted by key.
 */
void
sweep_scan(Sweep *sweep, Oid relid, SweepScope scope)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	AttrNumber *columns;
	bool	   *guarded;
	int			ncolumns;

	if (rel == NULL)
		return;
	columns = palloc(sizeof(AttrNumber) * (RelationGetDescr(rel)->natts + 1));
	guarded = palloc(sizeof(bool) * (RelationGetDescr(rel)->natts + 1));
	ncolumns = scan_columns(rel, scope, columns, guarded);
	if (ncolumns > 0)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		if (scope != SWEEP_REGISTERED ||
			!ask_indexes(sweep, rel, ncolumns, columns, guarded))
		{
			int64		nrows = scan_rows(sweep, rel, ncolumns, columns);

			for (int i = 0; i < ncolumns; i++)
				note_column(sweep, rel, columns[i], guarded[i], nrows, NULL);
		}
		PopActiveSnapshot();
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
