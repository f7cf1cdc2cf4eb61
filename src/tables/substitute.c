/*-------------------------------------------------------------------------
 *
 * substitute.c
 *	  A query on what the application knows becomes one on what is stored.
 *
 * In every level of a query that has been rewritten and is to be planned:
 *
 * - a Var of a carrier becomes a call that opens its sidecar.  The Vars that it
 *   takes are copies of that Var for other columns, so that everything that a
 *   Var carries besides (outer joins that null it, OLD and NEW) stays;
 * - a test of a carrier for null becomes a test of the sidecar, without a key;
 * - a whole row becomes a call that opens it;
 * - any other Var of a sidecar or term reads null;
 * - where a carrier is assigned, its sidecar is assigned null: so the trigger
 *   that seals can tell a new value from none;
 * - an ON CONFLICT target on a carrier becomes one on its term.
 *
 * While a table is switched live a value may still be in its carrier, and is
 * read from there if it is not sealed yet.  As long as no value of a column is,
 * Vars of it stay what they are.
 *
 * The result can be given to this again and is not changed: Vars that were put
 * in are marked by their location.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "compat.h"
#include "tables/functions.h"
#include "tables/search.h"
#include "tables/substitute.h"

static Node *substitute(Node *node, void *context);

/*
 * Does a range-table entry name a protected table?  Transition tables are of
 * their table's rows.
 */
bool
entry_is_protected(const RangeTblEntry *rte)
{
	return (rte->rtekind == RTE_RELATION || rte->rtekind == RTE_NAMEDTUPLESTORE) &&
		OidIsValid(rte->relid) && protection_exists(rte->relid);
}

/* How that is protected, palloc'd; NULL where it is not */
Protection *
entry_protection(const RangeTblEntry *rte)
{
	return entry_is_protected(rte) ? protection_of(rte->relid) : NULL;
}

/* Begin to work on a query. */
static void
query_level_init(QueryLevel *level, Query *query, QueryLevel *outer)
{
	int			n = 0;
	ListCell   *cell;

	level->query = query;
	level->outer = outer;
	level->protections = palloc0((list_length(query->rtable) + 1) * sizeof(Protection *));
	foreach(cell, query->rtable)
		level->protections[n++] = entry_protection(lfirst_node(RangeTblEntry, cell));
}

/* The query that a Var with this varlevelsup is of */
QueryLevel *
query_level_of(QueryLevel *level, Index levelsup)
{
	while (levelsup-- > 0 && level)
		level = level->outer;
	if (level == NULL)
		elog(ERROR, "a column of no query");
	return level;
}

/*
 * What a column is, and which protected column it belongs to.
 */
ColumnRole
column_role(const Protection *protection, AttrNumber attno,
			const ProtectedColumn **column)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *candidate = &protection->columns[i];

		*column = candidate;
		if (attno == candidate->carrier)
			return COLUMN_CARRIER;
		if (attno == candidate->sidecar ||
			(candidate->term != 0 && attno == candidate->term))
			return COLUMN_STORED;
	}
	*column = NULL;
	return COLUMN_ORDINARY;
}

/*
 * A Var for another column of the same row of the same table, marked as put in
 * by us.
 */
Var *
sibling_var(const Var *var, Oid relid, AttrNumber attno)
{
	Var		   *sibling = copyObject(unconstify(Var *, var));

	sibling->varattno = attno;
	if (sibling->varnosyn != 0 && sibling->varnosyn == sibling->varno)
		sibling->varattnosyn = attno;
	get_atttypetypmodcoll(relid, attno, &sibling->vartype, &sibling->vartypmod,
						  &sibling->varcollid);
	sibling->location = GENERATED_LOCATION;
	return sibling;
}

static const Protection *
var_protection(QueryLevel *level, const Var *var)
{
	QueryLevel *of = query_level_of(level, var->varlevelsup);

	if (var->location == GENERATED_LOCATION || var->varno < 1 ||
		var->varno > list_length(of->query->rtable))
		return NULL;
	return of->protections[var->varno - 1];
}

static Expr *
open_carrier(const Var *var, const Protection *protection,
			 const ProtectedColumn *column)
{
	Expr	   *opened;
	CoalesceExpr *either;

	opened = functions_call_open((Expr *) sibling_var(var, protection->relid,
													  protection->tenant),
								 (Expr *) sibling_var(var, protection->relid,
													  column->sidecar),
								 column->context,
								 column->type, column->typmod, column->collation);
	if (!protection_reads_carriers(protection))
		return opened;

	either = makeNode(CoalesceExpr);
	either->coalescetype = column->type;
	either->coalescecollid = column->collation;
	either->args = list_make2(opened, sibling_var(var, protection->relid, column->carrier));
	either->location = -1;
	return (Expr *) either;
}

/* One column of a protected table, by what stands for a Var of it */
static Expr *
read_column(const Var *var, const Protection *protection)
{
	const ProtectedColumn *column;

	switch (column_role(protection, var->varattno, &column))
	{
		case COLUMN_CARRIER:
			if (column->clear)
				break;
			return open_carrier(var, protection, column);
		case COLUMN_STORED:
			return (Expr *) makeNullConst(var->vartype, var->vartypmod, var->varcollid);
		case COLUMN_ORDINARY:
			break;
	}
	return (Expr *) copyObject(unconstify(Var *, var));
}

/*
 * The columns of a whole row that an application knows, opened; with their
 * names, if asked for.
 */
static List *
read_columns(const Var *row, const Protection *protection, List **names)
{
	Relation	rel = RelationIdGetRelation(protection->relid);
	TupleDesc	desc;
	List	   *columns = NIL;

	if (!RelationIsValid(rel))
		elog(ERROR, "could not open relation with OID %u", protection->relid);
	desc = RelationGetDescr(rel);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		const ProtectedColumn *column;

		if (attr->attisdropped ||
			column_role(protection, attr->attnum, &column) == COLUMN_STORED)
			continue;
		columns = lappend(columns,
						  read_column(sibling_var(row, protection->relid, attr->attnum),
									  protection));
		if (names)
			*names = lappend(*names, makeString(pstrdup(NameStr(attr->attname))));
	}
	RelationClose(rel);
	return columns;
}

static Node *
is_null_test(Expr *arg, NullTestType type, bool argisrow)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = arg;
	test->nulltesttype = type;
	test->argisrow = argisrow;
	test->location = -1;
	return (Node *) test;
}

/*
 * A whole row of a protected table.  Rows of transition tables have no type of
 * their own, so they are put together from their columns.
 */
static Node *
read_row(const Var *var, const Protection *protection)
{
	Var		   *row = copyObject(unconstify(Var *, var));
	RowExpr    *columns;
	CaseExpr   *unless_null;
	CaseWhen   *when;

	row->location = GENERATED_LOCATION;
	if (row->vartype != RECORDOID)
		return (Node *) functions_call_open_row((Expr *) row, row->vartype);

	columns = makeNode(RowExpr);
	columns->args = read_columns(var, protection, &columns->colnames);
	columns->row_typeid = RECORDOID;
	columns->row_format = COERCE_IMPLICIT_CAST;
	columns->location = -1;

	/* Of a row that an outer join made up, no row is left. */
	when = makeNode(CaseWhen);
	when->expr = (Expr *) is_null_test((Expr *) row, IS_NOT_NULL, false);
	when->result = (Expr *) columns;
	when->location = -1;
	unless_null = makeNode(CaseExpr);
	unless_null->casetype = RECORDOID;
	unless_null->args = list_make1(when);
	unless_null->defresult = (Expr *) makeNullConst(RECORDOID, -1, InvalidOid);
	unless_null->location = -1;
	return (Node *) unless_null;
}

static Node *
substitute_var(Var *var, QueryLevel *level)
{
	const Protection *protection = var_protection(level, var);

	if (protection == NULL || var->varattno < 0)
		return (Node *) copyObject(var);
	if (var->varattno == InvalidAttrNumber)
		return read_row(var, protection);
	return (Node *) read_column(var, protection);
}

/*
 * A test of a carrier or of a whole row for null; NULL where it is neither.
 */
static Node *
substitute_null_test(const NullTest *test, QueryLevel *level)
{
	const Var  *var = (const Var *) test->arg;
	const Protection *protection;
	const ProtectedColumn *column;
	Expr	   *stored;
	Expr	   *carrier;

	if (!IsA(var, Var) || (protection = var_protection(level, var)) == NULL)
		return NULL;

	/* Sidecars are null in the row that is read, and must not count. */
	if (var->varattno == InvalidAttrNumber && test->argisrow)
	{
		RowExpr    *columns = makeNode(RowExpr);

		columns->args = read_columns(var, protection, &columns->colnames);
		columns->row_typeid = RECORDOID;
		columns->row_format = COERCE_IMPLICIT_CAST;
		columns->location = -1;
		return is_null_test((Expr *) columns, test->nulltesttype, true);
	}

	if (test->argisrow ||
		column_role(protection, var->varattno, &column) != COLUMN_CARRIER ||
		column->clear)
		return NULL;
	stored = (Expr *) is_null_test((Expr *) sibling_var(var, protection->relid,
														column->sidecar),
								   test->nulltesttype, false);
	if (!protection_reads_carriers(protection))
		return (Node *) stored;
	carrier = (Expr *) is_null_test((Expr *) sibling_var(var, protection->relid,
														 column->carrier),
									test->nulltesttype, false);
	return (Node *) makeBoolExpr(test->nulltesttype == IS_NULL ? AND_EXPR : OR_EXPR,
								 list_make2(stored, carrier), -1);
}

/*
 * One field of a whole row; NULL where it is something else.
 */
static Node *
substitute_field(const FieldSelect *select, QueryLevel *level)
{
	const Var  *row = (const Var *) select->arg;
	const Protection *protection;
	Var		   *field;

	if (!IsA(row, Var) || row->varattno != InvalidAttrNumber ||
		row->vartype == RECORDOID ||
		(protection = var_protection(level, row)) == NULL)
		return NULL;
	field = sibling_var(row, protection->relid, select->fieldnum);
	if (field->vartype != select->resulttype)
		return NULL;
	return (Node *) read_column(field, protection);
}

/*
 * The condition of a NATURAL JOIN without what it says of columns that the
 * application does not know.
 */
static Node *
without_stored(Node *quals, QueryLevel *level)
{
	List	   *kept = NIL;
	ListCell   *cell;

	foreach(cell, make_ands_implicit((Expr *) quals))
	{
		OpExpr	   *equality = lfirst(cell);
		bool		stored = false;

		for (int i = 0; IsA(equality, OpExpr) && i < list_length(equality->args); i++)
		{
			const Var  *var = list_nth(equality->args, i);
			const Protection *protection;
			const ProtectedColumn *column;

			if (IsA(var, Var) && (protection = var_protection(level, var)) != NULL &&
				column_role(protection, var->varattno, &column) == COLUMN_STORED)
				stored = true;
		}
		if (!stored)
			kept = lappend(kept, equality);
	}
	return kept == NIL ? NULL : (Node *) make_ands_explicit(kept);
}

/* Does a target list assign a column? */
static TargetEntry *
assignment_of(List *targetlist, AttrNumber attno)
{
	ListCell   *cell;

	foreach(cell, targetlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk && entry->resno == attno)
			return entry;
	}
	return NULL;
}

/*
 * Complete the assignments of an UPDATE to a protected table: of the result
 * relation of the level's query, whose row a Var of varno stands for.
 *
 * Assigned alone, a sidecar keeps its value unless it is given one; terms are
 * the trigger's alone.
 */
static List *
complete_assignments(List *targetlist, const Protection *protection, int varno)
{
	List	   *result = NIL;
	List	   *junk = NIL;
	ListCell   *cell;

	foreach(cell, targetlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		const ProtectedColumn *column;

		if (entry->resjunk)
		{
			junk = lappend(junk, entry);
			continue;
		}
		if (column_role(protection, entry->resno, &column) == COLUMN_STORED)
		{
			if (entry->resno == column->term)
				continue;
			if (assignment_of(targetlist, column->carrier) == NULL &&
				!IsA(entry->expr, CoalesceExpr))
			{
				CoalesceExpr *given = makeNode(CoalesceExpr);
				Var		   *old = makeVar(varno, entry->resno, BYTEAOID, -1,
										  InvalidOid, 0);

				old->location = GENERATED_LOCATION;
				given->coalescetype = BYTEAOID;
				given->args = list_make2(entry->expr, old);
				given->location = -1;
				entry->expr = (Expr *) given;
			}
		}
		result = lappend(result, entry);
	}

	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *column = &protection->columns[i];

		if (assignment_of(targetlist, column->carrier) &&
			!assignment_of(targetlist, column->sidecar))
			result = lappend(result,
							 makeTargetEntry((Expr *) makeNullConst(BYTEAOID, -1, InvalidOid),
											 column->sidecar,
											 get_attname(protection->relid, column->sidecar, false),
											 false));
	}
	return list_concat(result, junk);
}

/* An ON CONFLICT target: a carrier is unique by its term, which may be named, too. */
static Node *
substitute_arbiter(InferenceElem *element, QueryLevel *level)
{
	Var		   *var = (Var *) element->expr;
	const Protection *protection;
	const ProtectedColumn *column;
	ColumnRole	role;
	InferenceElem *result;

	if (!IsA(var, Var) || (protection = var_protection(level, var)) == NULL)
		return expression_tree_mutator((Node *) element, substitute, level);
	role = column_role(protection, var->varattno, &column);
	if (role == COLUMN_STORED)
		return copyObject((Node *) element);
	if (role != COLUMN_CARRIER || column->term == 0 || column->clear)
		return expression_tree_mutator((Node *) element, substitute, level);
	result = makeNode(InferenceElem);
	result->expr = (Node *) sibling_var(var, protection->relid, column->term);
	return (Node *) result;
}

static Node *
substitute_on_conflict(const OnConflictExpr *from, QueryLevel *level)
{
	OnConflictExpr *result = makeNode(OnConflictExpr);
	int			target = level->query->resultRelation;

	/* The list of what EXCLUDED has stays as it is. */
	*result = *from;
	result->arbiterElems = (List *) substitute((Node *) from->arbiterElems, level);
	result->arbiterWhere = substitute(from->arbiterWhere, level);
	result->onConflictSet = (List *) substitute((Node *) from->onConflictSet, level);
	result->onConflictWhere = substitute(from->onConflictWhere, level);
	if (level->protections[target - 1])
		result->onConflictSet = complete_assignments(result->onConflictSet,
													 level->protections[target - 1],
													 target);
	return (Node *) result;
}

static Node *
substitute_merge_action(MergeAction *from, QueryLevel *level)
{
	MergeAction *action = (MergeAction *)
		expression_tree_mutator((Node *) from, substitute, level);
	int			target = level->query->resultRelation;

	if (action->commandType == CMD_UPDATE && level->protections[target - 1])
		action->targetList = complete_assignments(action->targetList,
												  level->protections[target - 1],
												  target);
	return (Node *) action;
}

/*
 * What reads null needs no privilege.  "*" asks for one on every column, ON
 * CONFLICT ON CONSTRAINT for one on those of the constraint.
 */
static void
ask_no_privileges(QueryLevel *level)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, level->query->rtable)
	{
		const Protection *protection = level->protections[n++];
		Bitmapset **selected;

		if (protection == NULL ||
			(selected = entry_selected_columns(level->query, lfirst(cell))) == NULL)
			continue;
		*selected = bms_copy(*selected);
		for (int i = 0; i < protection->ncolumns; i++)
		{
			const ProtectedColumn *column = &protection->columns[i];

			*selected = bms_del_member(*selected, column->sidecar -
									   FirstLowInvalidHeapAttributeNumber);
			if (column->term != 0)
				*selected = bms_del_member(*selected, column->term -
										   FirstLowInvalidHeapAttributeNumber);
		}
	}
}

static Query *
substitute_level(Query *query, QueryLevel *outer, Substitution *substitution)
{
	QueryLevel	level = {.substitution = substitution};
	Query	   *result;
	int			target = query->resultRelation;

	check_stack_depth();
	query_level_init(&level, query, outer);
	ask_no_privileges(&level);
	search_derive(&level);
	result = query_tree_mutator(query, substitute, &level, 0);
	if (result->commandType == CMD_UPDATE && target > 0 &&
		level.protections[target - 1])
		result->targetList = complete_assignments(result->targetList,
												  level.protections[target - 1],
												  target);
	return result;
}

static Node *
substitute(Node *node, void *context)
{
	QueryLevel *level = context;
	Node	   *result = NULL;

	if (node == NULL)
		return NULL;
	switch (nodeTag(node))
	{
		case T_Query:
			return (Node *) substitute_level((Query *) node, level, level->substitution);
		case T_Var:
			return substitute_var((Var *) node, level);
		case T_NullTest:
			result = substitute_null_test((NullTest *) node, level);
			break;
		case T_FieldSelect:
			result = substitute_field((FieldSelect *) node, level);
			break;
		case T_JoinExpr:
			if (((JoinExpr *) node)->isNatural)
				((JoinExpr *) node)->quals =
					without_stored(((JoinExpr *) node)->quals, level);
			break;
		case T_InferenceElem:
			return substitute_arbiter((InferenceElem *) node, level);
		case T_OnConflictExpr:
			return substitute_on_conflict((OnConflictExpr *) node, level);
		case T_MergeAction:
			return substitute_merge_action((MergeAction *) node, level);
		default:
			break;
	}
	if (result)
		return result;
	return expression_tree_mutator(node, substitute, context);
}

/*
 * The query on what is stored that answers as this one on what the application
 * knows.  The query given may be changed.
 */
Query *
substitute_query(Query *query, Substitution *substitution)
{
	return substitute_level(query, NULL, substitution);
}
