/*-------------------------------------------------------------------------
 *
 * ddl_copies.c
 *	  Statements that would store what protected columns hold in plaintext.
 *
 * CREATE TABLE AS, SELECT INTO and materialized views keep what their query
 * gives.  One that reads a protected column is refused, unless a superuser has
 * set envelope.allow_plaintext_copies.  The query is looked at as it is after
 * rewriting, so that a view in between makes no difference.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/prepare.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "settings.h"
#include "tables/planner.h"
#include "tables/protection.h"
#include "tables/utility.h"

/* Does a query use a protected column of this entry of its range table? */
static bool
reads_carrier(const Query *query, RangeTblEntry *entry)
{
	Protection *protection;
	Bitmapset  *columns;

	if (entry->rtekind != RTE_RELATION || (protection = protection_of(entry->relid)) == NULL)
		return false;
	columns = selected_columns(query, entry);
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns))
		return true;
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (bms_is_member(protection->columns[i].carrier - FirstLowInvalidHeapAttributeNumber,
						  columns))
			return true;
	}
	return false;
}

static bool
find_carrier(Node *node, void *context)
{
	ListCell   *cell;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, find_carrier, context);
	foreach(cell, ((Query *) node)->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (reads_carrier((Query *) node, entry))
		{
			*(Oid *) context = entry->relid;
			return true;
		}
	}
	return query_tree_walker((Query *) node, find_carrier, context, 0);
}

static void
check_queries(List *queries)
{
	ListCell   *cell;
	Oid			relid = InvalidOid;

	foreach(cell, queries)
	{
		if (find_carrier((Node *) lfirst(cell), &relid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("protected columns of table \"%s\" would be stored in plaintext",
							get_rel_name(relid)),
					 errhint("Use a view, or have a superuser set envelope.allow_plaintext_copies.")));
	}
}

/* The query of a materialized view */
static void
check_materialized_view(RangeVar *view)
{
	Oid			relid = RangeVarGetRelid(view, NoLock, true);
	Relation	rel;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_MATVIEW)
		return;
	rel = table_open(relid, AccessShareLock);
	if (rel->rd_rules && rel->rd_rules->numLocks == 1)
	{
		Query	   *query = copyObject(linitial_node(Query, rel->rd_rules->rules[0]->actions));

		AcquireRewriteLocks(query, true, false);
		check_queries(QueryRewrite(query));
	}
	table_close(rel, NoLock);
}

/*
 * Refuse (0A000) CREATE TABLE AS, CREATE and REFRESH MATERIALIZED VIEW where
 * the query reads protected columns; where it reads what is stored, it may.
 */
void
ddl_refuse_copy(Node *stmt)
{
	Query	   *query;

	if (envelope_allow_plaintext_copies || planner_shows_stored_form())
		return;
	if (IsA(stmt, RefreshMatViewStmt))
	{
		if (!((RefreshMatViewStmt *) stmt)->skipData)
			check_materialized_view(((RefreshMatViewStmt *) stmt)->relation);
		return;
	}
	query = castNode(Query, ((CreateTableAsStmt *) stmt)->query);
	if (query->commandType == CMD_UTILITY)
	{
		ExecuteStmt *execute = (ExecuteStmt *) query->utilityStmt;
		PreparedStatement *prepared = IsA(execute, ExecuteStmt) ?
			FetchPreparedStatement(execute->name, false) : NULL;

		if (prepared)
			check_queries(prepared->plansource->query_list);
		return;
	}
	check_queries(QueryRewrite(copyObject(query)));
}
