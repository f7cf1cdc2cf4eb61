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
 * What column an expression is, and how its term is reached, is found out in
 * search_column.c; which tenant it is of, in search_tenant.c.
 *
 * "tenant_id = ANY (Y)" serves as well, where Y depends on no row: then there is a
 * term for each tenant of Y.
 *
 * "Equal" is the default equality of the type, under a deterministic
 * collation; other operators mean other things.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "tables/functions.h"
#include "tables/search.h"
#include "tables/search_column.h"
#include "tables/search_tenant.h"
#include "tables/value.h"

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

	if (value_type == base || (search_is_integer(base) && search_is_integer(value_type)) ||
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
	return search_is_equality(operator, collation, base, value_type) ||
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

	if (!search_find_column(scope->level->query, node, found) ||
		(protection = entry_protection(found->rte)) == NULL ||
		column_role(protection, found->attno, column) != COLUMN_CARRIER ||
		(*column)->term == 0 || (*column)->clear ||
		protection_is_ahead(protection) ||
		!search_can_expose(scope->level, (const Var *) search_strip_relabel(node)))
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

/* An array of one value; NULL where its type has no arrays */
static Expr *
array_of(Expr *value)
{
	ArrayExpr  *array = makeNode(ArrayExpr);

	array->element_typeid = exprType((Node *) value);
	array->array_typeid = get_array_type(array->element_typeid);
	array->array_collid = exprCollation((Node *) value);
	array->elements = list_make1(value);
	array->location = -1;
	return OidIsValid(array->array_typeid) ? (Expr *) array : NULL;
}

/* "term = another", or "term = ANY (others)" */
static Expr *
comparison_of(bool any, List *args)
{
	ScalarArrayOpExpr *among;
	OpExpr	   *comparison;

	if (!any)
	{
		comparison = (OpExpr *) make_opclause(ByteaEqualOperator, BOOLOID, false,
											  linitial(args), lsecond(args),
											  InvalidOid, InvalidOid);
		comparison->opfuncid = F_BYTEAEQ;
		return (Expr *) comparison;
	}
	among = makeNode(ScalarArrayOpExpr);
	among->opno = ByteaEqualOperator;
	among->opfuncid = F_BYTEAEQ;
	among->useOr = true;
	among->args = args;
	among->location = -1;
	return (Expr *) among;
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
	const Var  *var = (const Var *) search_strip_relabel(node);
	Oid			value_type = exprType(value);
	const ProtectedColumn *column;
	FoundColumn found;
	const Protection *protection;
	Expr	   *tenant;
	Expr	   *argument;
	List	   *args;
	TenantFunction function = is_array ? FUNCTION_TERMS : FUNCTION_TERM;

	if (is_array)
		value_type = get_element_type(value_type);
	if (!OidIsValid(value_type) ||
		(protection = find_searchable(scope, node, &found, &column)) == NULL ||
		!means_equal_terms(operator, collation, column->type, value_type) ||
		!search_may_use(scope, value, var) ||
		(argument = as_column_type(copyObject(value), value_type, column->type,
								   is_array)) == NULL)
		return false;
	tenant = search_tenant(scope, var, &found, protection);
	if (tenant == NULL)
	{
		function = FUNCTION_TERMS_OF_TENANTS;
		tenant = search_tenants(scope, var, &found, protection);
		if (!is_array)
			argument = array_of(argument);
	}
	if (tenant == NULL || argument == NULL)
		return false;

	argument = functions_call_term(function, copyObject(tenant), argument, column->context);
	args = list_make2(search_expose(query, var, column->term),
					  known_term(scope->level->substitution, argument));
	if (contain_subplans((Node *) args))
		query->hasSubLinks = true;
	scope->added = lappend(scope->added, comparison_of(function != FUNCTION_TERM, args));
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
	scope.equalities = list_concat_copy(search_equalities(arm), around->equalities);
	scope.memberships = list_concat_copy(search_memberships(arm), around->memberships);
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

			if (!search_is_constant(constant) ||
				find_searchable(scope, side, &found, &column) == NULL)
				continue;
			foreach(inner, scope->equalities)
			{
				OpExpr	   *with_other = lfirst(inner);
				Node	   *other = search_other_side(with_other, search_strip_relabel(side));
				OpExpr	   *implied;

				if (inner == outer || other == NULL || search_is_constant(other) ||
					with_other->opno != with_constant->opno ||
					with_other->inputcollid != with_constant->inputcollid)
					continue;
				implied = copyObject(with_constant);
				other = copyObject(equal(search_strip_relabel(linitial(with_other->args)),
										 search_strip_relabel(side)) ?
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
	{
		scope->equalities = list_concat(scope->equalities,
										search_equalities(*(Node **) lfirst(cell)));
		scope->memberships = list_concat(scope->memberships,
										 search_memberships(*(Node **) lfirst(cell)));
	}
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
