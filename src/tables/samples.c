/*-------------------------------------------------------------------------
 *
 * samples.c
 *	  The samples that ANALYZE took of columns that are being protected.
 *
 * They are deleted with the statistics of these columns.  But the bytes of rows
 * that are gone stay in the files of a catalog, those of earlier samples too,
 * and those of extended statistics that were dropped because they held values.  So
 * these catalogs get new files, as VACUUM FULL would give them: with the rows
 * that there are, and none that is dead.  That locks them until the transaction
 * ends, and nobody plans a query meanwhile; so it comes last.
 *
 * Where a table is switched live, this is left to do.  The trigger's arguments
 * name the files that the catalogs have, by which doctor knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_statistic_ext_data.h"
#include "commands/cluster.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "tables/protect.h"
#include "tables/protection.h"

/* Where samples are */
static const Oid catalogs[] = {StatisticRelationId, StatisticExtDataRelationId};

/* Has ANALYZE kept samples of a column? */
static bool
has_samples(Oid relid, AttrNumber attnum, bool inherited)
{
	HeapTuple	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
										Int16GetDatum(attnum), BoolGetDatum(inherited));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_statistic) GETSTRUCT(tuple))->stakind1 != 0;
	ReleaseSysCache(tuple);
	return result;
}

/* Has it of a column that is protected, or is to be? */
bool
samples_exist(const ProtectPlan *plan)
{
	ListCell   *cell;
	ListCell   *lc;

	foreach(cell, plan->relids)
	{
		foreach(lc, plan->columns)
		{
			Oid			relid = lfirst_oid(cell);
			AttrNumber	attnum = get_attnum(relid, ((ProtectColumn *) lfirst(lc))->carrier);

			if (has_samples(relid, attnum, false) || has_samples(relid, attnum, true))
				return true;
		}
	}
	return false;
}

/*
 * The words that name the files of the catalogs in which samples of protected
 * columns have been, those among the plan's words included.  Called before the
 * statistics are removed.
 */
List *
samples_words(const ProtectPlan *plan)
{
	List	   *words = NIL;
	bool		samples = samples_exist(plan);

	for (int i = 0; i < lengthof(catalogs); i++)
	{
		Relation	catalog = table_open(catalogs[i], AccessShareLock);
		char	   *file = psprintf(UINT64_FORMAT ".%u.%u", GetSystemIdentifier(),
									MyDatabaseId, catalog->rd_rel->relfilenode);
		bool		had_some = false;
		ListCell   *cell;

		foreach(cell, plan->words)
			had_some |= strcmp(lfirst(cell), file) == 0;
		/* What was in statistics of several columns has been dropped by hand. */
		if (had_some || (samples && RelationGetNumberOfBlocks(catalog) > 0))
			words = lappend(lappend(words, SEAL_ARG_STATISTICS), file);
		table_close(catalog, AccessShareLock);
	}
	return words;
}

/* Copy the rows that there are of a catalog into another heap. */
static void
copy_catalog(Relation from, Relation to)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(from, snapshot, 0, NULL);
	HeapTuple	tuple;

	/* What is out of line will be in the catalog's own TOAST table. */
	to->rd_toastoid = from->rd_rel->reltoastrelid;
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		HeapTuple	copy = heap_copytuple(tuple);

		CHECK_FOR_INTERRUPTS();
		simple_heap_insert(to, copy);
		heap_freetuple(copy);
	}
	to->rd_toastoid = InvalidOid;
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

static void
renew_catalog(Oid relid)
{
	Relation	from = table_open(relid, AccessExclusiveLock);
	Oid			to_relid;
	Relation	to;

	if (RelationGetNumberOfBlocks(from) == 0)
	{
		table_close(from, AccessExclusiveLock);
		return;
	}
	CheckTableNotInUse(from, "envelope_protect");
	/* It is vacuumed by itself. */
	if (OidIsValid(from->rd_rel->reltoastrelid))
		LockRelationOid(from->rd_rel->reltoastrelid, AccessExclusiveLock);
	to_relid = make_new_heap(relid, from->rd_rel->reltablespace, from->rd_rel->relam,
							 from->rd_rel->relpersistence, AccessExclusiveLock);
	to = table_open(to_relid, AccessExclusiveLock);
	copy_catalog(from, to);
	table_close(to, NoLock);
	table_close(from, NoLock);
	finish_heap_swap(relid, to_relid, true, true, false, true,
					 RecentXmin, ReadNextMultiXactId(), RELPERSISTENCE_PERMANENT);
}

/*
 * Leave no samples in the files of catalogs, now that they have been deleted.
 */
void
samples_forget(void)
{
	CommandCounterIncrement();
	for (int i = 0; i < lengthof(catalogs); i++)
		renew_catalog(catalogs[i]);
	CommandCounterIncrement();
}
