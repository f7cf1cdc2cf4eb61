/*-------------------------------------------------------------------------
 *
 * positions.c
 *	  Columns that a statement knows by their position.
 *
 * "ORDER BY 7" and INSERT without a column list count columns, and count those
 * that the application does not know.  Where these stand behind all others that
 * makes no difference.  Where they do not, as when the table has got columns
 * since it was protected, another column would be meant: that is refused.
 *
 * The grammar's own tree says what was a position; a query that has been analyzed
 * does not.  So the text is parsed again where it matters.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "compat.h"
#include "tables/positions.h"
#include "tables/substitute.h"

/* The statement that was parsed into this query, as the grammar gave it */
static Node *
raw_statement(const char *text, const Query *query)
{
	ListCell   *cell;

	foreach(cell, raw_parser(text, RAW_PARSE_DEFAULT))
	{
		RawStmt    *raw = lfirst_node(RawStmt, cell);
		Node	   *stmt = raw->stmt;

		if (raw->stmt_location != query->stmt_location)
			continue;
		if (IsA(stmt, ExplainStmt))
			stmt = ((ExplainStmt *) stmt)->query;
		else if (IsA(stmt, DeclareCursorStmt))
			stmt = ((DeclareCursorStmt *) stmt)->query;
		else if (IsA(stmt, CreateTableAsStmt))
			stmt = ((CreateTableAsStmt *) stmt)->query;
		else if (IsA(stmt, PrepareStmt))
			stmt = ((PrepareStmt *) stmt)->query;
		else if (IsA(stmt, ViewStmt))
			stmt = ((ViewStmt *) stmt)->query;
		else if (IsA(stmt, CopyStmt))
			stmt = ((CopyStmt *) stmt)->query;
		return stmt;
	}
	return NULL;
}

static bool
is_position(const Node *node)
{
	return IsA(node, A_Const) && nodeTag(&((const A_Const *) node)->val) == T_Integer;
}

/*
 * "ORDER BY 7" was resolved while hidden columns were counted.  Refuse where
 * that could be another column than the client means.
 */
void
positions_check_list(ParseState *pstate, const Query *outermost, const Query *query,
					 List *hidden)
{
	AttrNumber	first = linitial_node(TargetEntry, hidden)->resno;
	const SelectStmt *raw;
	List	   *nodes = NIL;
	ListCell   *cell;

	if (query->sortClause == NIL && query->groupClause == NIL &&
		query->distinctClause == NIL)
		return;
	raw = (const SelectStmt *) raw_statement(pstate->p_sourcetext, outermost);
	if (raw == NULL || !IsA(raw, SelectStmt))
		return;
	foreach(cell, raw->sortClause)
		nodes = lappend(nodes, lfirst_node(SortBy, cell)->node);
	nodes = list_concat(nodes, raw->groupClause);
	nodes = list_concat(nodes, raw->distinctClause);
	foreach(cell, nodes)
	{
		A_Const    *node = lfirst(cell);

		if (node && is_position((Node *) node) && intVal(&node->val) >= first)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("position %d of the select list is behind a protected table's \"*\"",
							intVal(&node->val)),
					 errhint("Name the column."),
					 parser_errposition(pstate, node->location)));
	}
}

/* A statement, or that of a CTE of it; NULL where it has no such CTE */
static const Node *
raw_of(const Node *stmt, const char *cte_name)
{
	const WithClause *with = NULL;
	ListCell   *cell;

	if (stmt == NULL || cte_name == NULL)
		return stmt;
	if (IsA(stmt, SelectStmt))
		with = ((const SelectStmt *) stmt)->withClause;
	else if (IsA(stmt, InsertStmt))
		with = ((const InsertStmt *) stmt)->withClause;
	else if (IsA(stmt, UpdateStmt))
		with = ((const UpdateStmt *) stmt)->withClause;
	else if (IsA(stmt, DeleteStmt))
		with = ((const DeleteStmt *) stmt)->withClause;
	else if (IsA(stmt, MergeStmt))
		with = ((const MergeStmt *) stmt)->withClause;
	if (with == NULL)
		return NULL;
	foreach(cell, with->ctes)
	{
		const CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (strcmp(cte->ctename, cte_name) == 0)
			return cte->ctequery;
	}
	return NULL;
}

/* Has this INSERT, or the one that is that action of a MERGE, no column list? */
static bool
lacks_column_list(const Node *raw, int action)
{
	if (raw == NULL)
		return false;
	if (IsA(raw, InsertStmt))
		return ((const InsertStmt *) raw)->cols == NIL;
	return IsA(raw, MergeStmt) &&
		list_nth_node(MergeWhenClause, ((const MergeStmt *) raw)->mergeWhenClauses,
					  action)->targetList == NIL;
}

/* What an INSERT gives values for */
typedef struct GivenColumns
{
	AttrNumber	first_stored;	/* of those that the application does not
								 * know; 0 where none is given */
	bool		some_missing;	/* others are not given */
	bool		some_behind;	/* the application's, behind that */
} GivenColumns;

static GivenColumns
given_columns(List *targetlist, const Protection *protection)
{
	GivenColumns given = {0};
	Relation	rel = RelationIdGetRelation(protection->relid);
	const ProtectedColumn *column;
	int			ncolumns = 0;
	ListCell   *cell;

	foreach(cell, targetlist)
	{
		AttrNumber	attno = lfirst_node(TargetEntry, cell)->resno;

		if (column_role(protection, attno, &column) == COLUMN_STORED &&
			(given.first_stored == 0 || attno < given.first_stored))
			given.first_stored = attno;
	}
	if (!RelationIsValid(rel))
		return given;
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		if (TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			continue;
		ncolumns++;
		if (i + 1 > given.first_stored &&
			column_role(protection, i + 1, &column) != COLUMN_STORED)
			given.some_behind = true;
	}
	RelationClose(rel);
	given.some_missing = list_length(targetlist) < ncolumns;
	return given;
}

/* What is looked at */
typedef struct InsertPlace
{
	ParseState *pstate;
	const Query *outermost;
	const char *cte_name;		/* of the CTE that it is; NULL for none */
	const Protection *protection;
} InsertPlace;

/*
 * Look at one INSERT, or the one that is an action of a MERGE.  One that gives
 * all columns there are, as a dump does, is right.
 */
static void
check_insert(const InsertPlace *at, List *targetlist, int action)
{
	GivenColumns given = given_columns(targetlist, at->protection);

	if (given.first_stored == 0 || !given.some_missing ||
		!lacks_column_list(raw_of(raw_statement(at->pstate->p_sourcetext, at->outermost),
								  at->cte_name), action))
		return;
	if (!given.some_behind)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("INSERT has more expressions than target columns")));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("INSERT without a column list does not fit protected table \"%s\"",
					get_rel_name(at->protection->relid)),
			 errdetail("Columns were added behind those that hold what is sealed."),
			 errhint("Name the columns; or protect the table anew, with envelope_unprotect and envelope_protect, after which these come last.")));
}

static void
check_query(ParseState *pstate, const Query *outermost, const Query *query,
			const char *cte_name)
{
	InsertPlace at = {pstate, outermost, cte_name};
	ListCell   *cell;

	if (query->commandType != CMD_INSERT && query->commandType != CMD_MERGE)
		return;
	at.protection = entry_protection(rt_fetch(query->resultRelation, query->rtable));
	if (at.protection == NULL)
		return;
	if (query->commandType == CMD_INSERT)
		check_insert(&at, query->targetList, 0);
	foreach(cell, query->mergeActionList)
	{
		const MergeAction *action = lfirst_node(MergeAction, cell);

		if (action->commandType == CMD_INSERT)
			check_insert(&at, action->targetList, foreach_current_index(cell));
	}
}

/*
 * Refuse (0A000) an INSERT without a column list whose values would go to other
 * columns than the application means.
 */
void
positions_check_inserts(ParseState *pstate, const Query *outermost, const Query *query)
{
	ListCell   *cell;

	if (pstate->p_sourcetext == NULL)
		return;
	check_query(pstate, outermost, query, NULL);
	if (!query->hasModifyingCTE)
		return;
	foreach(cell, query->cteList)
	{
		const CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (IsA(cte->ctequery, Query))
			check_query(pstate, outermost, (const Query *) cte->ctequery, cte->ctename);
	}
}
