/*-------------------------------------------------------------------------
 *
 * arbiters.c
 *	  ON CONFLICT while a unique index moves from protected columns to terms.
 *
 * When a table is protected live there is a time at which both indexes are
 * there, and say the same of every row.  PostgreSQL infers the old one.  Of two
 * sessions that insert the same key at once, the one that comes second could
 * then meet the other's row in the new index, which it had not been told to
 * look at, and get an error instead of a conflict.  So wherever the old index is
 * an arbiter the new one is made one too.
 *
 * It need not be valid yet: what it has, it has rightly.  A plan that was made
 * before there was a new index is made anew, and nobody inserts into the index
 * before that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "tables/arbiters.h"
#include "tables/protection.h"

/* The column of a term's index that stands where a column is; itself for most */
static AttrNumber
moved_column(const Protection *protection, AttrNumber attnum)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (protection->columns[i].clear && protection->columns[i].carrier == attnum &&
			protection->columns[i].term != 0)
			return protection->columns[i].term;
	}
	return attnum;
}

/* Is an index what another will become? */
static bool
takes_place_of(const Protection *protection, Relation index, Relation old)
{
	const FormData_pg_index *form = index->rd_index;
	bool		moved = false;

	if (!form->indisunique || form->indnkeyatts != old->rd_index->indnkeyatts)
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attnum = old->rd_index->indkey.values[i];

		if (form->indkey.values[i] != moved_column(protection, attnum))
			return false;
		moved |= form->indkey.values[i] != attnum;
	}
	return moved && equal(RelationGetIndexExpressions(index), RelationGetIndexExpressions(old)) &&
		equal(RelationGetIndexPredicate(index), RelationGetIndexPredicate(old));
}

/* The indexes of a table that will take the places of others */
static List *
add_arbiters(Relation rel, const Protection *protection, List *arbiters)
{
	List	   *result = list_copy(arbiters);
	ListCell   *arbiter;
	ListCell   *cell;

	foreach(arbiter, arbiters)
	{
		Relation	old = index_open(lfirst_oid(arbiter), AccessShareLock);

		foreach(cell, RelationGetIndexList(rel))
		{
			Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

			if (takes_place_of(protection, index, old))
				result = list_append_unique_oid(result, lfirst_oid(cell));
			index_close(index, NoLock);
		}
		index_close(old, NoLock);
	}
	return result;
}

static void
complete_plan(PlannedStmt *stmt, Plan *plan)
{
	ModifyTable *modify = (ModifyTable *) plan;
	Oid			relid;
	Protection *protection;
	Relation	rel;

	if (plan == NULL || !IsA(plan, ModifyTable) || modify->arbiterIndexes == NIL)
		return;
	relid = rt_fetch(linitial_int(modify->resultRelations), stmt->rtable)->relid;
	protection = protection_of(relid);
	if (protection == NULL || !protection->live)
		return;
	rel = table_open(relid, NoLock);
	modify->arbiterIndexes = add_arbiters(rel, protection, modify->arbiterIndexes);
	table_close(rel, NoLock);
}

/* Complete the arbiters of a plan, in place. */
void
arbiters_complete(PlannedStmt *stmt)
{
	ListCell   *cell;

	complete_plan(stmt, stmt->planTree);
	foreach(cell, stmt->subplans)
		complete_plan(stmt, lfirst(cell));
}
