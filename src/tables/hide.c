/*-------------------------------------------------------------------------
 *
 * hide.c
 *	  What clients see of the columns that hold sealed values.
 *
 * A protected table has columns beside those that the application knows.  Where
 * a client says "*" it means those that it knows: so when its statement has been
 * analyzed, the others are taken out of the outermost list again, those that
 * came up through subqueries, joins, CTEs and functions too.  Further in they
 * stay, and read null.
 *
 * A client that names one of them, as pg_dump --inserts does, would get null
 * where it wants what is stored; it is told instead how to get that.
 *
 * Only statements that a client sent itself are treated so.  Within a function
 * "SELECT * INTO row" and RETURNS SETOF depend on all columns; there, named or
 * not, they read null.  Whether a statement is a client's is told by its text:
 * it is what the client sent, or what it has prepared before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "commands/prepare.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "parser/parse_type.h"
#include "parser/parsetree.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "tables/hide.h"
#include "tables/planner.h"
#include "tables/positions.h"
#include "tables/substitute.h"

static post_parse_analyze_hook_type prev_post_parse_analyze_hook = NULL;

/* A query and those around it, for what CTEs refer to */
typedef struct HideLevel
{
	const Query *query;
	const struct HideLevel *outer;
} HideLevel;

static bool is_stored(const HideLevel *level, const Var *var);

/* The list of what a query gives */
static List *
output_of(const Query *query)
{
	return query->commandType == CMD_SELECT ? query->targetList : query->returningList;
}

/* Is this column of a query's output one that an application does not know? */
static bool
output_is_stored(const Query *query, const HideLevel *outer, AttrNumber attno)
{
	HideLevel	level = {query, outer};
	TargetEntry *entry = get_tle_by_resno(output_of(query), attno);

	return entry && IsA(entry->expr, Var) && is_stored(&level, (Var *) entry->expr);
}

/* The same of a relation's or composite type's column */
static bool
column_is_stored(Oid relid, AttrNumber attno)
{
	const Protection *protection = OidIsValid(relid) ? protection_of(relid) : NULL;
	const ProtectedColumn *column;

	return protection && column_role(protection, attno, &column) == COLUMN_STORED;
}

static bool
cte_column_is_stored(const HideLevel *level, const RangeTblEntry *rte,
					 AttrNumber attno)
{
	ListCell   *cell;

	for (Index up = rte->ctelevelsup; up > 0 && level; up--)
		level = level->outer;
	if (level == NULL)
		return false;
	foreach(cell, level->query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		/* Of one that refers to itself the first part says it. */
		if (strcmp(cte->ctename, rte->ctename) == 0)
			return IsA(cte->ctequery, Query) && !rte->self_reference &&
				output_is_stored((Query *) cte->ctequery, level, attno);
	}
	return false;
}

/* Is this a Var for a column that an application does not know? */
static bool
is_stored(const HideLevel *level, const Var *var)
{
	RangeTblEntry *rte;
	Node	   *alias;

	for (Index up = var->varlevelsup; up > 0 && level; up--)
		level = level->outer;
	if (level == NULL || var->varattno <= 0 || IS_SPECIAL_VARNO(var->varno))
		return false;
	check_stack_depth();
	rte = rt_fetch(var->varno, level->query->rtable);
	switch (rte->rtekind)
	{
		case RTE_RELATION:
		case RTE_NAMEDTUPLESTORE:
			return column_is_stored(rte->relid, var->varattno);
		case RTE_SUBQUERY:
			return output_is_stored(rte->subquery, level, var->varattno);
		case RTE_CTE:
			return cte_column_is_stored(level, rte, var->varattno);
		case RTE_JOIN:
			alias = list_nth(rte->joinaliasvars, var->varattno - 1);
			return alias && IsA(alias, Var) && is_stored(level, (Var *) alias);
		case RTE_FUNCTION:
			if (list_length(rte->functions) != 1)
				return false;
			return column_is_stored(typeOrDomainTypeRelid(exprType(linitial_node(RangeTblFunction, rte->functions)->funcexpr)),
									var->varattno);
		default:
			return false;
	}
}

/* Are all fields of a row in a list, as "(row).*" puts them there? */
static bool
has_all_fields(List *entries, const Node *row)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_domain(exprType(row), -1, true);
	int			missing = 0;
	ListCell   *cell;

	if (desc == NULL)
		return false;
	for (int i = 0; i < desc->natts; i++)
		missing += TupleDescAttr(desc, i)->attisdropped ? 0 : 1;
	ReleaseTupleDesc(desc);

	foreach(cell, entries)
	{
		const FieldSelect *select = (const FieldSelect *) lfirst_node(TargetEntry, cell)->expr;

		if (IsA(select, FieldSelect) && equal(select->arg, row))
			missing--;
	}
	return missing <= 0;
}

/*
 * Is this entry one of those that a "*" became?  They all have its location,
 * which is unknown in the command TABLE; what is named has its own.
 */
static bool
is_of_star(List *entries, const TargetEntry *entry)
{
	const Var  *var = (const Var *) entry->expr;
	ListCell   *cell;

	if (IsA(var, FieldSelect))
		return has_all_fields(entries, (Node *) ((FieldSelect *) var)->arg);
	if (!IsA(var, Var))
		return false;
	if (var->location < 0)
		return true;
	foreach(cell, entries)
	{
		TargetEntry *other = lfirst_node(TargetEntry, cell);

		if (other != entry && IsA(other->expr, Var) &&
			((Var *) other->expr)->location == var->location)
			return true;
	}
	return false;
}

/* What the search for names has to know */
typedef struct NameContext
{
	ParseState *pstate;
	const HideLevel *level;
	List	   *stars;			/* entries of "*" in this query */
} NameContext;

static bool refuse_names(Node *node, void *context);

static void
refuse_names_in(Query *query, NameContext *outer)
{
	HideLevel	level = {query, outer->level};
	NameContext context = {outer->pstate, &level, NIL};
	List	   *lists[] = {query->targetList, query->returningList};
	ListCell   *cell;

	for (int i = 0; i < lengthof(lists); i++)
	{
		foreach(cell, lists[i])
		{
			if (is_of_star(lists[i], lfirst(cell)))
				context.stars = lappend(context.stars, lfirst(cell));
		}
	}
	(void) query_tree_walker(query, refuse_names, &context, QTW_IGNORE_JOINALIASES);
}

static bool
refuse_names(Node *node, void *context)
{
	NameContext *names = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		refuse_names_in((Query *) node, names);
		return false;
	}
	if (IsA(node, TargetEntry) && list_member_ptr(names->stars, node))
		return false;
	/* A tool that has read in the catalogs what is unique, names the term. */
	if (IsA(node, InferenceElem))
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		RangeTblEntry *rte;
		const HideLevel *level = names->level;

		if (var->location < 0 || !is_stored(level, var))
			return false;
		for (Index up = var->varlevelsup; up > 0; up--)
			level = level->outer;
		rte = rt_fetch(var->varno, level->query->rtable);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("column \"%s\" shows only what is stored",
						strVal(list_nth(rte->eref->colnames, var->varattno - 1))),
				 errdetail("It belongs to a protected column, whose own name gives the value."),
				 errhint("To see what is stored, set envelope.stored_form; for a program such as pg_dump --inserts, PGOPTIONS='-c envelope.stored_form=on'."),
				 parser_errposition(names->pstate, var->location)));
	}
	return expression_tree_walker(node, refuse_names, context);
}

/* Is this a column, or a field of a row, that an application does not know? */
static bool
entry_is_stored(const HideLevel *level, const TargetEntry *entry)
{
	const FieldSelect *select = (const FieldSelect *) entry->expr;

	if (IsA(select, FieldSelect))
		return column_is_stored(typeOrDomainTypeRelid(exprType((Node *) select->arg)),
								select->fieldnum);
	return IsA(entry->expr, Var) && is_stored(level, (Var *) entry->expr);
}

/*
 * What in a list of a query is to be hidden
 */
static List *
hidden_entries(const Query *query, List *entries)
{
	HideLevel	level = {query, NULL};
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, entries)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk && entry_is_stored(&level, entry) &&
			is_of_star(entries, entry))
			result = lappend(result, entry);
	}
	return result;
}

/*
 * A list without some of its entries.  One that the query sorts or groups by
 * stays, but is not shown.
 */
static List *
without_entries(List *entries, List *hidden)
{
	List	   *shown = NIL;
	List	   *junk = NIL;
	AttrNumber	next = 1;
	ListCell   *cell;

	foreach(cell, entries)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!list_member_ptr(hidden, entry) && !entry->resjunk)
			shown = lappend(shown, entry);
		else if (entry->resjunk || entry->ressortgroupref != 0)
			junk = lappend(junk, entry);
	}
	foreach(cell, shown)
		lfirst_node(TargetEntry, cell)->resno = next++;
	foreach(cell, junk)
	{
		lfirst_node(TargetEntry, cell)->resno = next++;
		lfirst_node(TargetEntry, cell)->resjunk = true;
	}
	return list_concat(shown, junk);
}

/*
 * Make of a query one on its result, without some of the columns: where they
 * are compared with others, as by UNION, they cannot just be left out.
 */
static void
select_others(Query *query, List *hidden)
{
	Query	   *inner = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List	   *shown = NIL;
	List	   *names = NIL;
	ListCell   *cell;

	*inner = *query;
	foreach(cell, inner->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		TargetEntry *outer;

		if (entry->resjunk)
			continue;
		names = lappend(names, makeString(pstrdup(entry->resname ? entry->resname : "")));
		if (list_member_ptr(hidden, entry))
			continue;
		outer = makeTargetEntry((Expr *) makeVarFromTargetEntry(1, entry),
								list_length(shown) + 1, entry->resname, false);
		outer->resorigtbl = entry->resorigtbl;
		outer->resorigcol = entry->resorigcol;
		shown = lappend(shown, outer);
	}
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = inner;
	rte->eref = makeAlias("shown", names);
	rte->inFromCl = true;
	ref->rtindex = 1;

	memset(query, 0, sizeof(Query));
	NodeSetTag(query, T_Query);
	query->commandType = CMD_SELECT;
	query->querySource = inner->querySource;
	query->queryId = inner->queryId;
	query->canSetTag = inner->canSetTag;
	query->stmt_location = inner->stmt_location;
	query->stmt_len = inner->stmt_len;
	query->rtable = list_make1(rte);
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	query->targetList = shown;
}

static void
hide_in(ParseState *pstate, const Query *outermost, Query *query)
{
	List	   *hidden = hidden_entries(query, output_of(query));

	if (hidden == NIL)
		return;
	if (query->commandType != CMD_SELECT)
		query->returningList = without_entries(query->returningList, hidden);
	else
	{
		positions_check_list(pstate, outermost, query, hidden);
		if (query->setOperations == NULL && query->distinctClause == NIL)
			query->targetList = without_entries(query->targetList, hidden);
		else if (!query->hasModifyingCTE)
			select_others(query, hidden);
	}
}

/* The utility statement that the client is running; NULL where it is none */
static Node *
running_utility(void)
{
	PlannedStmt *running;

	if (!PortalIsValid(ActivePortal) || ActivePortal->stmts == NIL)
		return NULL;
	running = PortalGetPrimaryStmt(ActivePortal);
	return running && running->commandType == CMD_UTILITY ? running->utilityStmt : NULL;
}

/*
 * Is a statement that the client has prepared being analyzed anew, with its
 * columns hidden as they were before?
 */
static bool
is_prepared_by_client(const ParseState *pstate, Query *query)
{
	Node	   *running = running_utility();
	PreparedStatement *prepared;
	TupleDesc	desc;

	if (running && IsA(running, ExplainStmt))
		running = ((Query *) ((ExplainStmt *) running)->query)->utilityStmt;
	if (running == NULL || !IsA(running, ExecuteStmt))
		return false;
	prepared = FetchPreparedStatement(((ExecuteStmt *) running)->name, false);
	if (prepared == NULL || prepared->plansource->query_string == NULL ||
		strcmp(prepared->plansource->query_string, pstate->p_sourcetext) != 0)
		return false;
	desc = prepared->plansource->resultDesc;
	return desc == NULL || desc->natts != ExecCleanTargetListLength(output_of(query));
}

/* Was this text sent by the client, and not by a function that it calls? */
static bool
is_of_client(const ParseState *pstate, Query *query)
{
	if (pstate->p_sourcetext == NULL || debug_query_string == NULL ||
		pstate->p_pre_columnref_hook || pstate->p_post_columnref_hook)
		return false;
	return pstate->p_sourcetext == debug_query_string ||
		strcmp(pstate->p_sourcetext, debug_query_string) == 0 ||
		is_prepared_by_client(pstate, query);
}

/* Could a query give columns of a protected table? */
static bool
concerns_protected(const Query *query)
{
	ListCell   *cell;

	foreach(cell, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);
		const RangeTblFunction *function;
		Oid			type;

		if (entry_is_protected(rte) ||
			(rte->rtekind == RTE_SUBQUERY && concerns_protected(rte->subquery)))
			return true;
		if (rte->rtekind != RTE_FUNCTION || list_length(rte->functions) != 1)
			continue;
		function = linitial(rte->functions);
		type = exprType(function->funcexpr);
		if (type >= FirstNormalObjectId &&
			OidIsValid(typeOrDomainTypeRelid(type)) &&
			protection_exists(typeOrDomainTypeRelid(type)))
			return true;
	}
	foreach(cell, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (IsA(cte->ctequery, Query) && concerns_protected((Query *) cte->ctequery))
			return true;
	}
	return false;
}

static void
statement_analyzed(ParseState *pstate, Query *query, JumbleState *jumble)
{
	Query	   *inner = query;
	Node	   *running;

	if (prev_post_parse_analyze_hook)
		prev_post_parse_analyze_hook(pstate, query, jumble);

	if (query->commandType == CMD_UTILITY)
	{
		Node	   *statement = query->utilityStmt;

		if (IsA(statement, ExplainStmt))
			inner = (Query *) ((ExplainStmt *) statement)->query;
		else if (IsA(statement, DeclareCursorStmt))
			inner = (Query *) ((DeclareCursorStmt *) statement)->query;
		else if (IsA(statement, CreateTableAsStmt))
			inner = (Query *) ((CreateTableAsStmt *) statement)->query;
		else
			return;
	}
	if (!IsA(inner, Query) || inner->commandType == CMD_UTILITY ||
		planner_shows_stored_form())
		return;
	positions_check_inserts(pstate, query, inner);
	if (!is_of_client(pstate, inner) || !concerns_protected(inner))
		return;

	/* A view may name what is stored; a dump could not be restored else. */
	running = running_utility();
	if (running == NULL || !IsA(running, ViewStmt))
	{
		NameContext context = {pstate, NULL, NIL};

		refuse_names_in(inner, &context);
	}
	hide_in(pstate, query, inner);
}

/*
 * Called from _PG_init, in a server that preloads the module.
 */
void
hide_install_hooks(void)
{
	prev_post_parse_analyze_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = statement_analyzed;
}
