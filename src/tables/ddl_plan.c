/*-------------------------------------------------------------------------
 *
 * ddl_plan.c
 *	  What those who look at DDL ask of a protected table.
 *
 * A table is only looked at: whatever changes it takes its own lock.  Whoever does
 * not own it gets PostgreSQL's own error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "tables/ddl.h"
#include "tables/protection.h"

void
ddl_refuse(const ProtectPlan *plan, const char *what, const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 column ?
			 errmsg("cannot %s column \"%s\" of protected table \"%s\"", what, column, plan->name) :
			 errmsg("cannot %s protected table \"%s\"", what, plan->name),
			 errhint("Make it an ordinary table with envelope_unprotect first, and protect it again afterwards.")));
}

void
ddl_refuse_live(const ProtectPlan *plan)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("table \"%s\" is being protected live", plan->name),
			 errhint("CALL envelope_protect_live again to finish it, or envelope_unprotect to go back.")));
}

/* Refuse a foreign table as something to a protected one: "as a partition of" */
void
ddl_refuse_foreign(const char *as, const char *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot have a foreign table %s protected table \"%s\"", as, table),
			 errdetail("Its rows are another server's to keep.")));
}

/*
 * Does the trigger of a table fit it?  Where it does not, as after a column was
 * renamed in a server without the module, statements pass that mend it.
 */
static bool
trigger_fits(Oid relid)
{
	Relation	rel = RelationIdGetRelation(relid);
	const char *misfit = NULL;

	if (RelationIsValid(rel))
	{
		(void) protection_try_read(rel, &misfit);
		RelationClose(rel);
	}
	return misfit == NULL;
}

/*
 * The plan of a protected table, and (owned) one that the current user owns;
 * NULL for any other table.  No more than looked at: what changes it takes its own lock.
 */
ProtectPlan *
ddl_plan_for(RangeVar *relation, bool owned)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;
	ProtectPlan *plan;
	Relation	rel;

	if (!OidIsValid(relid) ||
		(get_rel_relkind(relid) != RELKIND_RELATION &&
		 get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE) ||
		!trigger_fits(relid) || protection_of(relid) == NULL ||
		(owned && !object_ownercheck(RelationRelationId, relid, GetUserId())))
		return NULL;
	rel = relation_open(relid, AccessShareLock);
	plan = protect_plan(rel, AccessShareLock);
	relation_close(rel, NoLock);
	return plan->is_protected ? plan : NULL;
}

ProtectPlan *
ddl_plan_of(RangeVar *relation)
{
	return ddl_plan_for(relation, true);
}

ProtectColumn *
ddl_column_called(const ProtectPlan *plan, const char *name)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (name && strcmp(column->carrier, name) == 0)
			return column;
	}
	return NULL;
}

/* Is this the tenant column, or one that the application does not know? */
bool
ddl_is_fixed(const ProtectPlan *plan, const char *name)
{
	ListCell   *cell;

	if (name == NULL)
		return false;
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (strcmp(column->sidecar, name) == 0 ||
			(column->term && strcmp(column->term, name) == 0))
			return true;
	}
	return false;
}

/*
 * Does an expression, not analyzed yet, name a protected column, or the whole row?
 * That is called as the table is, unless one of its columns has the name.
 */
bool
ddl_mentions_carrier(Node *node, void *context)
{
	const ProtectPlan *plan = context;

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		Node	   *last = llast(((ColumnRef *) node)->fields);

		return IsA(last, A_Star) ||
			ddl_column_called(plan, strVal(last)) != NULL || ddl_is_fixed(plan, strVal(last)) ||
			(strcmp(strVal(last), plan->name) == 0 &&
			 get_attnum(plan->relid, plan->name) == InvalidAttrNumber);
	}
	if (IsA(node, IndexElem))	/* of an exclusion constraint */
	{
		const char *name = ((IndexElem *) node)->name;

		if (ddl_column_called(plan, name) != NULL || ddl_is_fixed(plan, name))
			return true;
	}
	return raw_expression_tree_walker(node, ddl_mentions_carrier, context);
}

bool
ddl_names_carrier(const ProtectPlan *plan, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (ddl_column_called(plan, strVal(lfirst(cell))))
			return true;
	}
	return false;
}

bool
ddl_names_fixed(const ProtectPlan *plan, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (ddl_is_fixed(plan, strVal(lfirst(cell))))
			return true;
	}
	return false;
}

/* Does a constraint, other than NOT NULL, look at a protected column? */
bool
ddl_constrains_carrier(const ProtectPlan *plan, const Constraint *constraint)
{
	void	   *context = unconstify(ProtectPlan *, plan);

	return ddl_names_carrier(plan, constraint->keys) ||
		ddl_names_carrier(plan, constraint->including) ||
		ddl_names_carrier(plan, constraint->fk_attrs) ||
		ddl_mentions_carrier(constraint->raw_expr, context) ||
		ddl_mentions_carrier((Node *) constraint->exclusions, context) ||
		ddl_mentions_carrier(constraint->where_clause, context);
}

/* Is this a constraint that is ours? */
bool
ddl_is_own_constraint(const ProtectPlan *plan, const char *name)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (strcmp(name, column->sidecar) == 0 ||
			strcmp(name, protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)) == 0)
			return true;
	}
	return false;
}
