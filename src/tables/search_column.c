/*-------------------------------------------------------------------------
 *
 * search_column.c
 *	  Which column of which table an expression of a query is.
 *
 * A column is followed through views and other subqueries that keep the rows
 * of their table, and through names given to joins.  Another column of the same
 * table, such as a term, is handed up the same way, as a further column of the
 * subqueries in between.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"

#include "compat.h"
#include "tables/search_column.h"

Node *
search_strip_relabel(const Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((const RelabelType *) node)->arg;
	return unconstify(Node *, node);
}

/* Does a subquery give the rows of its table, so that columns can be added? */
static bool
keeps_rows(const Query *query)
{
	return query->commandType == CMD_SELECT && query->setOperations == NULL &&
		query->distinctClause == NIL && query->groupClause == NIL &&
		query->groupingSets == NIL && !query->hasAggs && query->havingQual == NULL;
}

/*
 * The Var, of the same query or of a subquery, that a Var stands for; NULL
 * where it is a column of a table itself, or an expression.
 */
Var *
search_behind_var(const RangeTblEntry *rte, const Var *var, Query *query, Query **of)
{
	Node	   *behind = NULL;

	*of = query;
	if (rte->rtekind == RTE_JOIN)
		behind = list_nth(rte->joinaliasvars, var->varattno - 1);
	else if (rte->rtekind == RTE_SUBQUERY && keeps_rows(rte->subquery))
	{
		TargetEntry *entry = get_tle_by_resno(rte->subquery->targetList, var->varattno);

		if (entry && !entry->resjunk)
			behind = (Node *) entry->expr;
		*of = rte->subquery;
	}
	if (behind == NULL || !IsA(behind, Var) || ((Var *) behind)->varlevelsup != 0 ||
		((Var *) behind)->varattno <= 0)
		return NULL;
	return (Var *) behind;
}

/* What column of what table is this expression?  False where it is none. */
bool
search_find_column(Query *query, const Node *node, FoundColumn *found)
{
	const Var  *var = (const Var *) search_strip_relabel(node);

	while (var && IsA(var, Var) && var->varlevelsup == 0 && var->varattno > 0 &&
		   var->location != GENERATED_LOCATION)
	{
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

		if (rte->rtekind == RTE_RELATION)
		{
			found->query = query;
			found->rti = var->varno;
			found->attno = var->varattno;
			found->rte = rte;
			return true;
		}
		var = search_behind_var(rte, var, query, &query);
	}
	return false;
}

bool
search_same_table(const FoundColumn *a, const FoundColumn *b)
{
	return a->query == b->query && a->rti == b->rti;
}

/* Is there a Var for whole rows of a range-table entry in a query? */
typedef struct WholeRowContext
{
	int			rti;
	Index		depth;
} WholeRowContext;

static bool
whole_row_walker(Node *node, void *context)
{
	WholeRowContext *sought = context;
	bool		result;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		const Var  *var = (const Var *) node;

		return var->varlevelsup == sought->depth && var->varno == sought->rti &&
			var->varattno == InvalidAttrNumber;
	}
	if (IsA(node, Query))
	{
		sought->depth++;
		result = query_tree_walker((Query *) node, whole_row_walker, context, 0);
		sought->depth--;
		return result;
	}
	return expression_tree_walker(node, whole_row_walker, context);
}

/* Does a query lock rows, or look at some again that others have changed? */
static bool
marks_rows(const Query *query)
{
	return query->rowMarks != NIL || query->commandType == CMD_UPDATE ||
		query->commandType == CMD_DELETE || query->commandType == CMD_MERGE;
}

/* Will a subquery become part of the query that it is in? */
static bool
is_pulled_up(const RangeTblEntry *rte)
{
	const Query *subquery = rte->subquery;

	return !rte->security_barrier && subquery->limitCount == NULL &&
		subquery->limitOffset == NULL && subquery->sortClause == NIL &&
		subquery->cteList == NIL && subquery->rowMarks == NIL &&
		!subquery->hasWindowFuncs && !subquery->hasTargetSRFs &&
		!contain_volatile_functions((Node *) subquery->targetList);
}

/*
 * Will whole rows of this be asked for, to be locked or looked at again?  Those
 * of a view have its type, which has no further columns.  What is in a sublink or
 * subquery may come to be in the query around it that does so (marked).
 */
static bool
rows_are_marked(const Query *query, const RangeTblEntry *rte, bool marked)
{
	if (!OidIsValid(rte->relid))
		return false;
	return query->rowMarks != NIL || ((marked || marks_rows(query)) && !is_pulled_up(rte));
}

/* Can the columns behind a Var be reached, subqueries being given more? */
bool
search_can_expose(const QueryLevel *level, const Var *var)
{
	Query	   *query = level->query;
	bool		marked = false;

	for (const QueryLevel *outer = level->outer; outer; outer = outer->outer)
		marked |= marks_rows(outer->query);
	for (;;)
	{
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);
		WholeRowContext sought = {var->varno, 0};

		if (rte->rtekind == RTE_RELATION)
			return true;
		if (rte->rtekind == RTE_SUBQUERY &&
			(rows_are_marked(query, rte, marked) ||
			 query_tree_walker(query, whole_row_walker, &sought, 0)))
			return false;
		marked |= marks_rows(query);
		var = search_behind_var(rte, var, query, &query);
		if (var == NULL)
			return false;
	}
}

/* A column of a subquery for an expression of it, added behind the others */
static TargetEntry *
add_column(RangeTblEntry *rte, Var *inner)
{
	Query	   *subquery = rte->subquery;
	List	   *visible = NIL;
	List	   *junk = NIL;
	TargetEntry *added;
	ListCell   *cell;

	foreach(cell, subquery->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk && IsA(entry->expr, Var) &&
			((Var *) entry->expr)->location == GENERATED_LOCATION &&
			equal(entry->expr, inner))
			return entry;
		if (entry->resjunk)
		{
			entry->resno++;
			junk = lappend(junk, entry);
		}
		else
			visible = lappend(visible, entry);
	}
	added = makeTargetEntry((Expr *) inner, list_length(visible) + 1,
							pstrdup("term"), false);
	subquery->targetList = list_concat(lappend(visible, added), junk);
	rte->eref = copyObject(rte->eref);
	rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup("term")));
	return added;
}

/*
 * Another column of the table behind a Var, as a Var of the same query.  The
 * Var is one that search_find_column has found.
 */
Var *
search_expose(Query *query, const Var *var, AttrNumber attno)
{
	RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);
	Query	   *of;
	const Var  *next;
	Var		   *behind;
	Var		   *result;
	TargetEntry *entry;

	if (rte->rtekind == RTE_RELATION)
		return sibling_var(var, rte->relid, attno);

	next = search_behind_var(rte, var, query, &of);
	if (next == NULL)
		elog(ERROR, "no column of a table is behind a variable");
	behind = search_expose(of, next, attno);
	if (rte->rtekind == RTE_JOIN)
	{
		behind = copyObject(behind);
		var_add_nulling(behind, var);
		return behind;
	}
	entry = add_column(rte, behind);
	result = copyObject(unconstify(Var *, var));
	result->varattno = entry->resno;
	result->varattnosyn = result->varnosyn == result->varno ? entry->resno : 0;
	if (result->varattnosyn == 0)
		result->varnosyn = 0;
	result->vartype = behind->vartype;
	result->vartypmod = behind->vartypmod;
	result->varcollid = behind->varcollid;
	result->location = GENERATED_LOCATION;
	return result;
}
