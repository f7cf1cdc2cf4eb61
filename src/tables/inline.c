/*-------------------------------------------------------------------------
 *
 * inline.c
 *	  Which queries concern protected tables, with the SQL functions that they
 *	  call in FROM, and the CTEs.
 *
 * PostgreSQL's planner replaces a call of a simple SQL function in FROM by the
 * function's query, long after the planner hook has seen the statement.  A
 * query on protected tables would get past us so.  Therefore it is done here
 * first, by PostgreSQL's own means, where such a query is what comes out; any
 * other call stays as it is, for PostgreSQL to replace.
 *
 * The same is done with a CTE that is referred to once, as PostgreSQL does it a
 * little later: so a search from outside comes down to the table.
 *
 * What the plan then depends on, the functions and, under row-level security,
 * the role, is noted for the caller to add to the plan.
 *
 * This is what every statement pays, so it looks at range tables alone unless
 * there are sublinks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/syscache.h"

#include "tables/inline.h"
#include "tables/substitute.h"

typedef struct FindContext
{
	ParamListInfo params;
	PlannerGlobal *inlined;		/* NULL until a function is */
	bool		found;
} FindContext;

static void find_in_query(Query *query, FindContext *context);

/* Could PostgreSQL replace this call by a query? */
static bool
may_be_inlined(const RangeTblEntry *rte)
{
	RangeTblFunction *function;
	FuncExpr   *call;
	HeapTuple	tuple;
	Form_pg_proc form;
	bool		result;

	if (rte->funcordinality || list_length(rte->functions) != 1)
		return false;
	function = linitial_node(RangeTblFunction, rte->functions);
	call = (FuncExpr *) function->funcexpr;
	if (!IsA(call, FuncExpr) || !call->funcretset ||
		call->funcid < FirstNormalObjectId)
		return false;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	result = form->prolang == SQLlanguageId && !form->prosecdef &&
		!form->proisstrict && form->provolatile != PROVOLATILE_VOLATILE;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Replace a call of a function by its query, if that concerns protected tables.
 */
static void
inline_function_entry(RangeTblEntry *rte, FindContext *context)
{
	PlannerInfo *root = makeNode(PlannerInfo);
	FindContext inner = {context->params, NULL, false};
	RangeTblEntry *simplified;
	Query	   *query;

	root->glob = makeNode(PlannerGlobal);
	root->glob->boundParams = context->params;
	root->parse = makeNode(Query);
	root->planner_cxt = CurrentMemoryContext;
	root->query_level = 1;

	simplified = copyObject(rte);
	simplified->functions = (List *)
		eval_const_expressions(root, (Node *) simplified->functions);
	query = inline_set_returning_function(root, simplified);
	if (query == NULL)
		return;
	inner.inlined = root->glob;
	find_in_query(query, &inner);
	if (!inner.found)
		return;

	/* What was a function is still asked about by its columns' types. */
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->security_barrier = false;
	rte->functions = simplified->functions;
	rte->funcordinality = false;

	context->found = true;
	if (context->inlined == NULL)
		context->inlined = inner.inlined;
	else
	{
		context->inlined->invalItems = list_concat(context->inlined->invalItems,
												   inner.inlined->invalItems);
		context->inlined->dependsOnRole |= inner.inlined->dependsOnRole;
	}
}

/* Does a query write, or lock rows? */
static bool
does_more_than_read(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		const Query *query = (const Query *) node;

		return query->commandType != CMD_SELECT || query->rowMarks != NIL ||
			query_tree_walker((Query *) node, does_more_than_read, context, 0);
	}
	return expression_tree_walker(node, does_more_than_read, context);
}

/* Would PostgreSQL put a CTE's query in the place of the one reference to it? */
static bool
cte_may_be_inlined(const CommonTableExpr *cte)
{
	return cte->cterefcount == 1 && !cte->cterecursive &&
		cte->ctematerialized != CTEMaterializeAlways &&
		!does_more_than_read(cte->ctequery, NULL) &&
		!contain_volatile_functions(cte->ctequery);
}

typedef struct CteContext
{
	CommonTableExpr *cte;
	Index		depth;			/* of queries below the one that has it */
} CteContext;

static bool
inline_cte_walker(Node *node, void *context)
{
	CteContext *sought = context;
	RangeTblEntry *rte = (RangeTblEntry *) node;
	bool		result;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		sought->depth++;
		result = query_tree_walker((Query *) node, inline_cte_walker, context,
								   QTW_EXAMINE_RTES_AFTER);
		sought->depth--;
		return result;
	}
	if (!IsA(node, RangeTblEntry))
		return expression_tree_walker(node, inline_cte_walker, context);
	if (rte->rtekind != RTE_CTE || rte->ctelevelsup != sought->depth ||
		strcmp(rte->ctename, sought->cte->ctename) != 0)
		return false;

	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = copyObject(castNode(Query, sought->cte->ctequery));
	if (rte->ctelevelsup > 0)
		IncrementVarSublevelsUp((Node *) rte->subquery, (int) rte->ctelevelsup, 1);
	rte->security_barrier = false;
	rte->ctename = NULL;
	rte->ctelevelsup = 0;
	rte->self_reference = false;
	rte->coltypes = NIL;
	rte->coltypmods = NIL;
	rte->colcollations = NIL;
	sought->cte->cterefcount--;
	return true;
}

/* Look at a CTE of a query, and put it where it is referred to if that may be. */
static void
find_in_cte(Query *query, CommonTableExpr *cte, FindContext *context)
{
	FindContext inner = {context->params, context->inlined, false};
	CteContext	sought = {cte, 0};

	find_in_query(castNode(Query, cte->ctequery), &inner);
	context->inlined = inner.inlined;
	if (!inner.found)
		return;
	context->found = true;
	if (cte_may_be_inlined(cte))
		(void) query_tree_walker(query, inline_cte_walker, &sought,
								 QTW_EXAMINE_RTES_AFTER);
}

static bool
find_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		find_in_query((Query *) node, context);
		return false;
	}
	return expression_tree_walker(node, find_walker, context);
}

static void
find_in_query(Query *query, FindContext *context)
{
	ListCell   *cell;

	check_stack_depth();
	foreach(cell, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

		switch (rte->rtekind)
		{
			case RTE_RELATION:
			case RTE_NAMEDTUPLESTORE:
				if (!context->found && entry_is_protected(rte))
					context->found = true;
				break;
			case RTE_SUBQUERY:
				find_in_query(rte->subquery, context);
				break;
			case RTE_FUNCTION:
				if (may_be_inlined(rte))
					inline_function_entry(rte, context);
				break;
			default:
				break;
		}
	}
	foreach(cell, query->cteList)
		find_in_cte(query, lfirst_node(CommonTableExpr, cell), context);
	if (query->hasSubLinks)
		(void) query_tree_walker(query, find_walker, context,
								 QTW_IGNORE_RC_SUBQUERIES);
}

/*
 * Does a query, which has been rewritten, concern protected tables?  Functions
 * through which it does are replaced in it by their queries; *inlined says then
 * what a plan depends on besides, and is NULL otherwise.
 */
bool
inline_and_find(Query *query, ParamListInfo params, PlannerGlobal **inlined)
{
	FindContext context = {params, NULL, false};

	find_in_query(query, &context);
	*inlined = context.inlined;
	return context.found;
}
