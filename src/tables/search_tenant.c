/*-------------------------------------------------------------------------
 *
 * search_tenant.c
 *	  What conditions say of the tenant of a row.
 *
 * A term is of a tenant and a value, so a search by terms has to know the
 * tenant: from the list of conditions that the comparison of the value is in,
 * from those around that list, or from what lets rows through on their way, a
 * policy of row-level security or the WHERE of a view.  Best is what depends on no row;
 * else a column of another table serves, so that a join can search.  Where
 * the tenant is one of several, of an array, there is a term for each.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "tables/search_tenant.h"

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

/* Does an expression read a CTE of this query or one around it? */
static bool
reads_cte_walker(Node *node, void *context)
{
	Index	   *depth = context;
	bool		result;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_CTE &&
			((RangeTblEntry *) node)->ctelevelsup >= *depth;
	if (IsA(node, Query))
	{
		(*depth)++;
		result = query_tree_walker((Query *) node, reads_cte_walker, context,
								   QTW_EXAMINE_RTES_BEFORE);
		(*depth)--;
		return result;
	}
	return expression_tree_walker(node, reads_cte_walker, context);
}

/* Does an expression mean the same in any query? */
static bool
means_the_same_anywhere(const Node *node)
{
	Index		depth = 0;

	return !reads_cte_walker(unconstify(Node *, node), &depth);
}

bool
search_is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* Is this operator, of values of these types, the equality of a type? */
bool
search_is_equality(Oid operator, Oid collation, Oid left, Oid right)
{
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		return false;
	if (search_is_integer(left) && search_is_integer(right))
		return get_op_opfamily_strategy(operator, INTEGER_BTREE_FAM_OID) ==
			BTEqualStrategyNumber;
	return lookup_type_cache(left, TYPECACHE_EQ_OPR)->eq_opr == operator;
}

static bool
is_equality_clause(const Node *node)
{
	const OpExpr *clause = (const OpExpr *) node;

	return node && IsA(node, OpExpr) && list_length(clause->args) == 2 &&
		search_is_equality(clause->opno, clause->inputcollid,
						   exprType(linitial(clause->args)), exprType(lsecond(clause->args)));
}

/* Is this "value = ANY (array)"? */
static bool
is_membership_clause(const Node *node)
{
	const ScalarArrayOpExpr *clause = (const ScalarArrayOpExpr *) node;

	return node && IsA(node, ScalarArrayOpExpr) && clause->useOr &&
		search_is_equality(clause->opno, clause->inputcollid,
						   exprType(linitial(clause->args)),
						   get_element_type(exprType(lsecond(clause->args))));
}

/* Those among conditions that are ANDed of which "wanted" is true */
static List *
conditions_of(Node *quals, bool (*wanted) (const Node *))
{
	List	   *result = NIL;
	ListCell   *cell;

	if (quals == NULL)
		return NIL;
	if (IsA(quals, List))
	{
		foreach(cell, (List *) quals)
			result = list_concat(result, conditions_of(lfirst(cell), wanted));
	}
	else if (is_andclause(quals))
		return conditions_of((Node *) ((BoolExpr *) quals)->args, wanted);
	else if (wanted(quals))
		result = list_make1(quals);
	return result;
}

/* The equalities among conditions that are ANDed */
List *
search_equalities(Node *quals)
{
	return conditions_of(quals, is_equality_clause);
}

/* The same of "value = ANY (array)" */
List *
search_memberships(Node *quals)
{
	return conditions_of(quals, is_membership_clause);
}

/* The other side of an equality one side of which is this; NULL where none is */
Node *
search_other_side(const OpExpr *equality, const Node *side)
{
	Node	   *left = search_strip_relabel(linitial(equality->args));
	Node	   *right = search_strip_relabel(lsecond(equality->args));

	if (equal(left, side))
		return right;
	if (equal(right, side))
		return left;
	return NULL;
}

bool
search_is_constant(const Node *node)
{
	return !depends_on_row(node) && !contain_volatile_functions(unconstify(Node *, node));
}

/*
 * Does a condition compare tenant ids as the module does?  A column can also be
 * taken for one of another type, whose equality is another: as an oid, or as
 * char(n) or citext.
 */
static bool
is_of_tenants(const Node *condition)
{
	Oid			left;
	Oid			right;

	op_input_types(IsA(condition, ScalarArrayOpExpr) ?
				   ((const ScalarArrayOpExpr *) condition)->opno :
				   ((const OpExpr *) condition)->opno, &left, &right);
	return (left == TEXTOID && right == TEXTOID) ||
		(left == UUIDOID && right == UUIDOID) ||
		(search_is_integer(left) && search_is_integer(right));
}

/* Is an expression this column of this table? */
static bool
is_column(Query *query, const Node *node, const FoundColumn *column)
{
	FoundColumn found;

	return search_find_column(query, node, &found) &&
		search_same_table(&found, column) && found.attno == column->attno;
}

/*
 * What depends on no row and a column is compared with by one of these
 * conditions of a query: a value, or an array of which it is one; NULL where
 * there is none.
 */
static Node *
constant_among(Query *query, List *conditions, const FoundColumn *column)
{
	ListCell   *cell;

	foreach(cell, conditions)
	{
		Node	   *condition = lfirst(cell);
		bool		is_array = IsA(condition, ScalarArrayOpExpr);
		List	   *sides = is_array ? ((ScalarArrayOpExpr *) condition)->args :
			((OpExpr *) condition)->args;

		for (int i = 0; i < (is_array ? 1 : 2); i++)
		{
			Node	   *value = list_nth(sides, 1 - i);

			if (is_of_tenants(condition) &&
				is_column(query, list_nth(sides, i), column) &&
				search_is_constant(value))
				return is_array ? value : search_strip_relabel(value);
		}
	}
	return NULL;
}

/*
 * What a column, of a table that a Var leads to, is always compared with by
 * conditions of that kind because of what policies on the table and the
 * subqueries on the way let through; NULL where nothing is known.
 */
static Node *
always_compared(Query *query, const Var *var, const FoundColumn *column,
				List *(*conditions_among) (Node *))
{
	Query	   *outermost = query;

	while (var)
	{
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);
		List	   *conditions = conditions_among((Node *) rte->securityQuals);
		Node	   *value;

		/* The conditions of the outermost are looked at elsewhere. */
		if (query != outermost)
			conditions = list_concat(conditions, conditions_among(query->jointree->quals));
		value = constant_among(query, conditions, column);
		if (value && (query == outermost || means_the_same_anywhere(value)))
			return value;
		var = rte->rtekind == RTE_RELATION ? NULL : search_behind_var(rte, var, query, &query);
	}
	return NULL;
}

/* May an expression stand in a scope's conditions, beside a column of a table? */
bool
search_may_use(const Scope *scope, const Node *node, const Var *column)
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

		for (int i = 0; i < 2; i++)
		{
			if (is_of_tenants((Node *) equality) &&
				is_column(query, list_nth(equality->args, i), tenant))
				reached = list_append_unique(reached,
											 search_strip_relabel(list_nth(equality->args, 1 - i)));
		}
	}

	while (next < list_length(reached))
	{
		Node	   *node = list_nth(reached, next++);
		FoundColumn other;
		Node	   *always;

		if (search_is_constant(node))
			return node;
		if (*usable == NULL && search_may_use(scope, node, column))
			*usable = node;
		if (!search_find_column(query, node, &other))
			continue;
		always = always_compared(query, (Var *) node, &other, search_equalities);
		if (always)
			return always;
		foreach(cell, equalities)
		{
			Node	   *value = is_of_tenants(lfirst(cell)) ?
				search_other_side(lfirst(cell), node) : NULL;

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
Expr *
search_tenant(const Scope *scope, const Var *column, const FoundColumn *found,
			  const Protection *protection)
{
	FoundColumn tenant = *found;
	Node	   *result;
	Node	   *usable = NULL;
	Node	   *elsewhere = NULL;

	tenant.attno = protection->tenant;
	result = always_compared(scope->level->query, column, &tenant, search_equalities);
	if (result == NULL)
		result = follow_tenant(scope, scope->equalities, column, &tenant, &usable);
	if (result == NULL && scope->general)
		result = follow_tenant(scope, list_concat_copy(scope->equalities, scope->general),
							   column, &tenant, &elsewhere);
	return (Expr *) (result ? result : usable);
}

/*
 * An array, depending on no row, that a row's tenant is in, if the conditions
 * tell of one; NULL where they do not.
 */
Expr *
search_tenants(const Scope *scope, const Var *column, const FoundColumn *found,
			   const Protection *protection)
{
	FoundColumn tenant = *found;
	Node	   *result;

	tenant.attno = protection->tenant;
	result = always_compared(scope->level->query, column, &tenant, search_memberships);
	if (result == NULL)
		result = constant_among(scope->level->query, scope->memberships, &tenant);
	return (Expr *) result;
}
