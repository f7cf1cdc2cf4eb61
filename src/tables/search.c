/*-------------------------------------------------------------------------
 *
 * search.c
 *	  Comparisons of terms, added where a statement compares values.
 *
 * No index can answer "email = 'ann@example.com'" where email is opened row by
 * row.  But equal values of a tenant have equal terms: so where a condition
 * holds only for rows with
 *
 *		email = X  and  tenant_id = Y
 *
 * "email__term = envelope.term(Y, X, context)" holds too, and an index on it can
 * be used.  It is added, and the comparison of values stays, for it is what was
 * asked; the planner is told that it removes nothing more (recheck).
 *
 * That an added condition follows from those that are there is all that makes
 * it correct.  A condition is looked for in the lists of conditions that are
 * ANDed: WHERE with the ON of inner joins, the ON of each outer join, and the
 * arms of an OR, to which the list around them belongs.  Where Y depends on no
 * row, it may come from WHERE for any of them: a row that it removes early would
 * be removed in the end.  And it may come from below: from a row-level security
 * policy on the table, or from the WHERE of a view.
 *
 * A column is followed through views and other subqueries that keep the rows
 * of their table, and through names given to joins; its term is then handed up
 * the same way, as a further column of the subquery.
 *
 * "Equal" is the default equality of the type, under a deterministic
 * collation; other operators mean other things.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "tables/functions.h"
#include "tables/search.h"
#include "tables/value.h"

/* A column of a table, as a Var of some query comes down to it */
typedef struct FoundColumn
{
	Query	   *query;			/* in whose range table the table is */
	int			rti;
	AttrNumber	attno;
	const RangeTblEntry *rte;
} FoundColumn;

/* A list of conditions that are ANDed */
typedef struct Scope
{
	QueryLevel *level;
	List	   *equalities;		/* OpExpr, from this list and those around it */
	List	   *general;		/* more of them, for what depends on no row */
	Relids		relids;			/* whose columns may be used; NULL for all */
	List	   *added;			/* conditions */
} Scope;

/* Does an expression depend on columns of this query or one around it? */
static bool
depends_on_row_walker(Node *node, void *context)
{
	Index	   *depth = context;
	bool		result;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varlevelsup >= *depth;
	if (IsA(node, Query))
	{
		(*depth)++;
		result = query_tree_walker((Query *) node, depends_on_row_walker, context, 0);
		(*depth)--;
		return result;
	}
	return expression_tree_walker(node, depends_on_row_walker, context);
}

static bool
depends_on_row(const Node *node)
{
	Index		depth = 0;

	return depends_on_row_walker(unconstify(Node *, node), &depth);
}

static Node *
strip_relabel(const Node *node)
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
static Var *
behind_var(const RangeTblEntry *rte, const Var *var, Query *query, Query **of)
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
static bool
find_column(Query *query, const Node *node, FoundColumn *found)
{
	const Var  *var = (const Var *) strip_relabel(node);

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
		var = behind_var(rte, var, query, &query);
	}
	return false;
}

static bool
same_table(const FoundColumn *a, const FoundColumn *b)
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

/*
 * Will whole rows of this be asked for, to be locked or looked at again?  Those
 * of a view have its type, which has no further columns.
 */
static bool
rows_are_marked(const Query *query, const RangeTblEntry *rte)
{
	if (!OidIsValid(rte->relid))
		return false;
	return query->rowMarks != NIL ||
		(query->commandType != CMD_SELECT &&
		 (rte->security_barrier || rte->subquery->limitCount ||
		  rte->subquery->limitOffset || rte->subquery->hasWindowFuncs ||
		  rte->subquery->hasTargetSRFs));
}

/* Can the columns behind a Var be reached, subqueries being given more? */
static bool
can_expose(Query *query, const Var *var)
{
	for (;;)
	{
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);
		WholeRowContext sought = {var->varno, 0};

		if (rte->rtekind == RTE_RELATION)
			return true;
		if (rte->rtekind == RTE_SUBQUERY &&
			(rows_are_marked(query, rte) ||
			 query_tree_walker(query, whole_row_walker, &sought, 0)))
			return false;
		var = behind_var(rte, var, query, &query);
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
 * Another column of the table behind a Var, as a Var of the same query.
 */
static Var *
expose(Query *query, const Var *var, AttrNumber attno)
{
	RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);
	Query	   *of;
	Var		   *behind;
	Var		   *result;
	TargetEntry *entry;

	if (rte->rtekind == RTE_RELATION)
		return sibling_var(var, rte->relid, attno);

	behind = expose(rte->rtekind == RTE_JOIN ? query : rte->subquery,
					behind_var(rte, var, query, &of), attno);
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

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* Is this operator, of values of these types, the equality of a type? */
static bool
is_equality(Oid operator, Oid collation, Oid left, Oid right)
{
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		return false;
	if (is_integer(left) && is_integer(right))
		return get_op_opfamily_strategy(operator, INTEGER_BTREE_FAM_OID) ==
			BTEqualStrategyNumber;
	return lookup_type_cache(left, TYPECACHE_EQ_OPR)->eq_opr == operator;
}

static bool
is_equality_clause(const Node *node)
{
	const OpExpr *clause = (const OpExpr *) node;

	return node && IsA(node, OpExpr) && list_length(clause->args) == 2 &&
		is_equality(clause->opno, clause->inputcollid,
					exprType(linitial(clause->args)), exprType(lsecond(clause->args)));
}

/* The equalities among conditions that are ANDed */
static List *
equalities_of(Node *quals)
{
	List	   *result = NIL;
	ListCell   *cell;

	if (quals == NULL)
		return NIL;
	if (IsA(quals, List))
	{
		foreach(cell, (List *) quals)
			result = list_concat(result, equalities_of(lfirst(cell)));
	}
	else if (is_andclause(quals))
		return equalities_of((Node *) ((BoolExpr *) quals)->args);
	else if (is_equality_clause(quals))
		result = list_make1(quals);
	return result;
}

/* The other side of an equality one side of which is this; NULL where none is */
static Node *
other_side(const OpExpr *equality, const Node *side)
{
	Node	   *left = strip_relabel(linitial(equality->args));
	Node	   *right = strip_relabel(lsecond(equality->args));

	if (equal(left, side))
		return right;
	if (equal(right, side))
		return left;
	return NULL;
}

static bool
is_constant(const Node *node)
{
	return !depends_on_row(node) && !contain_volatile_functions(unconstify(Node *, node));
}

/*
 * The constant that a column is compared with by one of these equalities of a
 * query; NULL where there is none.
 */
static Node *
constant_among(Query *query, List *equalities, const FoundColumn *column)
{
	ListCell   *cell;

	foreach(cell, equalities)
	{
		OpExpr	   *equality = lfirst(cell);
		FoundColumn side;

		for (int i = 0; i < 2; i++)
		{
			Node	   *value = strip_relabel(list_nth(equality->args, 1 - i));

			if (find_column(query, list_nth(equality->args, i), &side) &&
				same_table(&side, column) && side.attno == column->attno &&
				is_constant(value))
				return value;
		}
	}
	return NULL;
}

/*
 * What a column, of a table that a Var leads to, always equals because of what
 * policies on the table and the subqueries on the way let through; NULL where
 * nothing is known.
 */
static Node *
always_equals(Query *query, const Var *var, const FoundColumn *column)
{
	Query	   *outermost = query;
	Node	   *value = NULL;

	while (var && value == NULL)
	{
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);
		List	   *equalities = equalities_of((Node *) rte->securityQuals);

		/* The conditions of the outermost are looked at elsewhere. */
		if (query != outermost)
			equalities = list_concat(equalities, equalities_of(query->jointree->quals));
		value = constant_among(query, equalities, column);
		var = rte->rtekind == RTE_RELATION ? NULL : behind_var(rte, var, query, &query);
	}
	return value;
}

/* May an expression stand in a scope's conditions, beside a column of a table? */
static bool
may_use(const Scope *scope, const Node *node, const Var *column)
{
	Relids		relids;
	int			rti = -1;

	if (contain_volatile_functions(unconstify(Node *, node)))
		return false;
	if (!depends_on_row(node))
		return true;
	if (contain_subplans(unconstify(Node *, node)))
		return false;
	relids = pull_varnos(NULL, unconstify(Node *, node));
	if (bms_is_member(column->varno, relids) ||
		(scope->relids && !bms_is_subset(relids, scope->relids)))
		return false;
	while ((rti = bms_next_member(relids, rti)) >= 0)
	{
		/* A join's columns could be the column's table again. */
		if (rt_fetch(rti, scope->level->query->rtable)->rtekind == RTE_JOIN)
			return false;
	}
	return true;
}

/*
 * Go from what a table's tenant is compared with to what that is compared with,
 * and so on, by some equalities.  Returns the first that depends on no row; NULL
 * where there is none.  *usable becomes the first that may be used here.
 */
static Node *
follow_tenant(const Scope *scope, List *equalities, const Var *column,
			  const FoundColumn *tenant, Node **usable)
{
	Query	   *query = scope->level->query;
	List	   *reached = NIL;
	ListCell   *cell;
	int			next = 0;

	foreach(cell, equalities)
	{
		OpExpr	   *equality = lfirst(cell);
		FoundColumn side;

		for (int i = 0; i < 2; i++)
		{
			if (find_column(query, list_nth(equality->args, i), &side) &&
				same_table(&side, tenant) && side.attno == tenant->attno)
				reached = list_append_unique(reached,
											 strip_relabel(list_nth(equality->args, 1 - i)));
		}
	}

	while (next < list_length(reached))
	{
		Node	   *node = list_nth(reached, next++);
		FoundColumn other;
		Node	   *always;

		if (is_constant(node))
			return node;
		if (*usable == NULL && may_use(scope, node, column))
			*usable = node;
		if (!find_column(query, node, &other))
			continue;
		always = always_equals(query, (Var *) node, &other);
		if (always)
			return always;
		foreach(cell, equalities)
		{
			Node	   *value = other_side(lfirst(cell), node);

			if (value)
				reached = list_append_unique(reached, value);
		}
	}
	return NULL;
}

/*
 * What a row's tenant equals, if the conditions tell: best what depends on no
 * row, else a column of another table.  NULL where they do not.
 */
static Expr *
tenant_of(const Scope *scope, const Var *column, const FoundColumn *found,
		  const Protection *protection)
{
	FoundColumn tenant = *found;
	Node	   *result;
	Node	   *usable = NULL;
	Node	   *elsewhere = NULL;

	tenant.attno = protection->tenant;
	result = always_equals(scope->level->query, column, &tenant);
	if (result == NULL)
		result = follow_tenant(scope, scope->equalities, column, &tenant, &usable);
	if (result == NULL && scope->general)
		result = follow_tenant(scope, list_concat_copy(scope->equalities, scope->general),
							   column, &tenant, &elsewhere);
	return (Expr *) (result ? result : usable);
}

/*
 * A value to be compared, as one of the column's type; NULL where equality of
 * the two does not mean equal terms.
 */
static Expr *
as_column_type(Node *value, Oid value_type, Oid column_type, bool is_array)
{
	Oid			base = getBaseType(column_type);
	bool		is_text = base == TEXTOID || base == VARCHAROID;
	Oid			wanted;

	if (value_type == base || (is_integer(base) && is_integer(value_type)) ||
		(is_text && (value_type == TEXTOID || value_type == VARCHAROID)))
		return (Expr *) value;
	wanted = is_array ? get_array_type(base) : base;
	if (!IsBinaryCoercible(value_type, base) || !OidIsValid(wanted))
		return NULL;
	return (Expr *) makeRelabelType((Expr *) value, wanted, -1,
									get_typcollation(wanted), COERCE_IMPLICIT_CAST);
}

/* Does this operator on the column mean that terms are equal? */
static bool
means_equal_terms(Oid operator, Oid collation, Oid column_type, Oid value_type)
{
	Oid			base = getBaseType(column_type);

	if (value_unsearchable(base, collation) != NULL)
		return false;
	/* Of types that are compared as text too, equal texts are equal values. */
	return is_equality(operator, collation, base, value_type) ||
		operator == TextEqualOperator;
}

/*
 * How the table is protected of which this is a searchable column; NULL where
 * it is none, or its term cannot be reached.
 */
static const Protection *
find_searchable(const Scope *scope, const Node *node, FoundColumn *found,
				const ProtectedColumn **column)
{
	const Protection *protection;

	if (!find_column(scope->level->query, node, found) ||
		(protection = entry_protection(found->rte)) == NULL || protection->live ||
		column_role(protection, found->attno, column) != COLUMN_CARRIER ||
		(*column)->term == 0 ||
		!can_expose(scope->level->query, (const Var *) strip_relabel(node)))
		return NULL;
	return protection;
}

/*
 * Compute a term now, if what it is of is known; so the planner sees how many
 * rows have it, and the executor need not.
 */
static Expr *
known_term(Substitution *substitution, Expr *term)
{
	PlannerInfo *root = makeNode(PlannerInfo);
	FuncExpr   *call = (FuncExpr *) term;
	Node	   *known;
	ListCell   *cell;

	root->glob = makeNode(PlannerGlobal);
	root->glob->boundParams = substitution->params;
	call->args = (List *) eval_const_expressions(root, (Node *) call->args);
	foreach(cell, call->args)
	{
		if (!IsA(lfirst(cell), Const))
			return term;
	}
	/* This evaluates what is stable, which of the arguments nothing is. */
	known = estimate_expression_value(root, (Node *) call);
	if (!IsA(known, Const))
		return term;
	substitution->terms_known = true;
	return (Expr *) known;
}

/*
 * Add a comparison of terms for "node operator value", or for "node operator
 * ANY (value)".  True if one was.
 */
static bool
add_comparison(Scope *scope, const Node *node, Node *value, Oid operator,
			   Oid collation, bool is_array)
{
	Query	   *query = scope->level->query;
	const Var  *var = (const Var *) strip_relabel(node);
	Oid			value_type = exprType(value);
	const ProtectedColumn *column;
	FoundColumn found;
	const Protection *protection;
	Expr	   *tenant;
	Expr	   *argument;
	List	   *args;

	if (is_array)
		value_type = get_element_type(value_type);
	if (!OidIsValid(value_type) ||
		(protection = find_searchable(scope, node, &found, &column)) == NULL ||
		!means_equal_terms(operator, collation, column->type, value_type) ||
		!may_use(scope, value, var) ||
		(tenant = tenant_of(scope, var, &found, protection)) == NULL ||
		(argument = as_column_type(copyObject(value), value_type, column->type,
								   is_array)) == NULL)
		return false;

	argument = functions_call_term(is_array ? FUNCTION_TERMS : FUNCTION_TERM,
								   copyObject(tenant), argument, column->context);
	args = list_make2(expose(query, var, column->term),
					  known_term(scope->level->substitution, argument));
	if (contain_subplans((Node *) args))
		query->hasSubLinks = true;
	if (is_array)
	{
		ScalarArrayOpExpr *any = makeNode(ScalarArrayOpExpr);

		any->opno = ByteaEqualOperator;
		any->opfuncid = F_BYTEAEQ;
		any->useOr = true;
		any->args = args;
		any->location = -1;
		scope->added = lappend(scope->added, any);
	}
	else
	{
		OpExpr	   *comparison = (OpExpr *)
			make_opclause(ByteaEqualOperator, BOOLOID, false,
						  linitial(args), lsecond(args), InvalidOid, InvalidOid);

		comparison->opfuncid = F_BYTEAEQ;
		scope->added = lappend(scope->added, comparison);
	}
	return true;
}

static Node *derive(Scope *scope, Node *clause);

/* The arm of an OR: a list of its own, to which the one around it belongs */
static Node *
derive_arm(const Scope *around, Relids relids, Node *arm)
{
	Scope		scope = *around;

	scope.relids = relids;
	scope.added = NIL;
	scope.equalities = list_concat_copy(equalities_of(arm), around->equalities);
	arm = derive(&scope, arm);
	if (scope.added == NIL)
		return arm;
	return (Node *) makeBoolExpr(AND_EXPR, lappend(scope.added, arm), -1);
}

/*
 * Look at a condition, and collect in the scope what can be added to it.
 * Returns what is to stand in its place.
 */
static Node *
derive(Scope *scope, Node *clause)
{
	ListCell   *cell;

	if (clause == NULL)
		return NULL;
	if (is_andclause(clause))
	{
		foreach(cell, ((BoolExpr *) clause)->args)
			lfirst(cell) = derive(scope, lfirst(cell));
	}
	else if (is_orclause(clause))
	{
		Relids		relids = scope->relids ? scope->relids : pull_varnos(NULL, clause);

		foreach(cell, ((BoolExpr *) clause)->args)
			lfirst(cell) = derive_arm(scope, relids, lfirst(cell));
	}
	else if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) clause;
		bool		left = add_comparison(scope, linitial(op->args), lsecond(op->args),
										  op->opno, op->inputcollid, false);
		bool		right = add_comparison(scope, lsecond(op->args), linitial(op->args),
										   op->opno, op->inputcollid, false);

		if (left || right)
			return (Node *) functions_call_recheck((Expr *) clause);
	}
	else if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
	{
		ScalarArrayOpExpr *any = (ScalarArrayOpExpr *) clause;

		if (add_comparison(scope, linitial(any->args), lsecond(any->args),
						   any->opno, any->inputcollid, true))
			return (Node *) functions_call_recheck((Expr *) clause);
	}
	return clause;
}

/*
 * "a = column AND column = constant" means "a = constant".  PostgreSQL would
 * find that out of columns; of what is opened it cannot.
 */
static List *
implied_equalities(const Scope *scope)
{
	List	   *result = NIL;
	ListCell   *outer;
	ListCell   *inner;

	foreach(outer, scope->equalities)
	{
		OpExpr	   *with_constant = lfirst(outer);

		for (int i = 0; i < 2; i++)
		{
			Node	   *constant = list_nth(with_constant->args, i);
			Node	   *side = list_nth(with_constant->args, 1 - i);
			FoundColumn found;
			const ProtectedColumn *column;

			if (!is_constant(constant) ||
				find_searchable(scope, side, &found, &column) == NULL)
				continue;
			foreach(inner, scope->equalities)
			{
				OpExpr	   *with_other = lfirst(inner);
				Node	   *other = other_side(with_other, strip_relabel(side));
				OpExpr	   *implied;

				if (inner == outer || other == NULL || is_constant(other) ||
					with_other->opno != with_constant->opno ||
					with_other->inputcollid != with_constant->inputcollid)
					continue;
				implied = copyObject(with_constant);
				other = copyObject(equal(strip_relabel(linitial(with_other->args)),
										 strip_relabel(side)) ?
								   lsecond(with_other->args) : linitial(with_other->args));
				if (exprType(other) != exprType(side))
					continue;
				lfirst(list_nth_cell(implied->args, 1 - i)) = other;
				result = lappend(result, implied);
			}
		}
	}
	return result;
}

/* The joins below a node that are not inner, and where the others' conditions are */
static void
collect_inner(Node *node, List **quals, List **outer_joins)
{
	ListCell   *cell;

	if (IsA(node, FromExpr))
	{
		FromExpr   *from = (FromExpr *) node;

		*quals = lappend(*quals, &from->quals);
		foreach(cell, from->fromlist)
			collect_inner(lfirst(cell), quals, outer_joins);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) node;

		if (join->jointype != JOIN_INNER)
		{
			*outer_joins = lappend(*outer_joins, join);
			return;
		}
		*quals = lappend(*quals, &join->quals);
		collect_inner(join->larg, quals, outer_joins);
		collect_inner(join->rarg, quals, outer_joins);
	}
}

/* The range-table indexes of the tables below a node */
static Relids
relids_below(Node *node)
{
	Relids		result = NULL;
	ListCell   *cell;

	if (IsA(node, RangeTblRef))
		return bms_make_singleton(((RangeTblRef *) node)->rtindex);
	if (IsA(node, FromExpr))
	{
		foreach(cell, ((FromExpr *) node)->fromlist)
			result = bms_join(result, relids_below(lfirst(cell)));
		return result;
	}
	return bms_join(relids_below(((JoinExpr *) node)->larg),
					relids_below(((JoinExpr *) node)->rarg));
}

static void
and_to(Node **quals, List *added)
{
	if (added == NIL)
		return;
	if (*quals)
		added = lappend(list_copy(added), *quals);
	*quals = (Node *) (list_length(added) == 1 ? linitial(added) :
					   (void *) makeBoolExpr(AND_EXPR, added, -1));
}

/* One list of conditions, in several places, the first of which takes more */
static void
derive_list(Scope *scope, List *places)
{
	Node	  **first = linitial(places);
	List	   *implied;
	ListCell   *cell;

	foreach(cell, places)
		scope->equalities = list_concat(scope->equalities,
										equalities_of(*(Node **) lfirst(cell)));
	implied = implied_equalities(scope);
	and_to(first, implied);
	scope->equalities = list_concat(scope->equalities, implied);
	foreach(cell, places)
		* (Node **) lfirst(cell) = derive(scope, *(Node **) lfirst(cell));
	and_to(first, scope->added);
}

/* The conditions of an outer join, and of what it joins */
static void
derive_outer_join(QueryLevel *level, JoinExpr *join, List *general)
{
	Scope		scope = {.level = level,.general = general};
	Node	   *sides[] = {join->larg, join->rarg};

	/* PostgreSQL joins in full only by what it can sort or hash by. */
	if (join->jointype != JOIN_FULL)
	{
		scope.relids = relids_below((Node *) join);
		derive_list(&scope, list_make1(&join->quals));
	}

	for (int i = 0; i < lengthof(sides); i++)
	{
		Scope		inner = {.level = level,.general = general};
		List	   *places = NIL;
		List	   *outer_joins = NIL;
		ListCell   *cell;

		collect_inner(sides[i], &places, &outer_joins);
		if (places != NIL)
		{
			/* Those of the uppermost join may use all that is below it. */
			inner.relids = relids_below(sides[i]);
			derive_list(&inner, places);
		}
		foreach(cell, outer_joins)
			derive_outer_join(level, lfirst(cell), general);
	}
}

/*
 * Add comparisons of terms to the conditions of a query, where they follow from
 * what is there.
 */
void
search_derive(QueryLevel *level)
{
	Query	   *query = level->query;
	Scope		scope = {.level = level};
	List	   *places = NIL;
	List	   *outer_joins = NIL;
	ListCell   *cell;

	if (query->jointree == NULL)
		return;
	collect_inner((Node *) query->jointree, &places, &outer_joins);
	if (places != NIL)			/* as ever: a jointree is a FromExpr */
		derive_list(&scope, places);
	foreach(cell, outer_joins)
		derive_outer_join(level, lfirst(cell), scope.equalities);

	if (query_merge_condition(query))
	{
		Scope		merge = {.level = level};

		derive_list(&merge, list_make1(query_merge_condition(query)));
	}
}
