/*-------------------------------------------------------------------------
 *
 * ddl_create.c
 *	  CREATE TABLE beside a protected table: its partitions, and tables like it.
 *
 * A partition gets the trigger that seals from PostgreSQL, a table like it from
 * us.  Constraints that come with the statement are checked on what is stored, so
 * they may say of a protected column what ALTER TABLE may: that it is not null,
 * which is its sidecar's, and its default.  UNIQUE of a partition becomes an
 * index, and is looked at as such in ddl_beside.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "tables/ddl.h"
#include "tables/protection.h"

/* A table that is to be made */
typedef struct NewTable
{
	ProtectPlan *plan;			/* of the one that it belongs to, or is like */
	ProtectPlan named;			/* the same with its own name, as whole rows
								 * are called */
	bool		is_partition;
} NewTable;

pg_noreturn static void
refuse(const NewTable *table, const char *what)
{
	ddl_refuse(table->plan,
			   psprintf("%s a %s", what, table->is_partition ? "partition of" : "table like"),
			   NULL);
}

/* A constraint of the table, or (column, else NULL) one of a protected column */
static void
check_constraint(const NewTable *table, Constraint *constraint, const ProtectColumn *column)
{
	switch (constraint->contype)
	{
		case CONSTR_NOTNULL:
			/* Since PostgreSQL 18 it may be one of the table. */
			if (constraint->keys)
				column = ddl_column_called(table->plan, strVal(linitial(constraint->keys)));
			if (column && table->plan->live)
				ddl_refuse_live(table->plan);
			if (column && constraint->keys)
				constraint->keys = list_make1(makeString(column->sidecar));
			else if (constraint->keys && ddl_is_fixed(table->plan, strVal(linitial(constraint->keys))))
				refuse(table, "constrain a sidecar or term in");
			return;
		case CONSTR_UNIQUE:
			if (table->is_partition)
				return;
			break;
		case CONSTR_PRIMARY:
			/* It would make them NOT NULL. */
			if (table->is_partition && ddl_names_fixed(table->plan, constraint->keys))
				refuse(table, "constrain a sidecar or term in");
			/* FALLTHROUGH */
		case CONSTR_FOREIGN:
			if (column)
				refuse(table, "constrain a protected column in");
			break;
		default:
			break;
	}
	if (ddl_constrains_carrier(&table->named, constraint))
		refuse(table, "constrain a protected column in");
}

/*
 * What is said of a column of a partition.  Its NOT NULL constraints go to the
 * sidecar; what is to be said of that is returned.  Beside NULL they stay, for
 * PostgreSQL to say that they contradict it.
 */
static ColumnDef *
check_column(const NewTable *table, ColumnDef *definition)
{
	ProtectColumn *column = ddl_column_called(table->plan, definition->colname);
	ColumnDef  *sidecar = NULL;
	bool		has_null = false;
	ListCell   *cell;

	if (ddl_is_fixed(table->plan, definition->colname))
		refuse(table, "say something of a sidecar or term in");
	foreach(cell, definition->constraints)
		has_null |= lfirst_node(Constraint, cell)->contype == CONSTR_NULL;
	foreach(cell, definition->constraints)
	{
		Constraint *constraint = lfirst_node(Constraint, cell);

		check_constraint(table, constraint, column);
		if (column == NULL || has_null || constraint->contype != CONSTR_NOTNULL)
			continue;
		if (sidecar == NULL)
		{
			sidecar = makeNode(ColumnDef);
			sidecar->colname = pstrdup(column->sidecar);
			sidecar->is_local = true;
			sidecar->location = -1;
		}
		sidecar->constraints = lappend(sidecar->constraints, constraint);
		definition->constraints = foreach_delete_current(definition->constraints, cell);
	}
	return sidecar;
}

/* A table that belongs to a protected one, or is like it */
static void
check_table(CreateStmt *stmt, ProtectPlan *plan)
{
	NewTable	table = {plan, *plan, stmt->partbound != NULL};
	List	   *sidecars = NIL;
	ListCell   *cell;

	table.named.name = stmt->relation->relname;
	foreach(cell, stmt->tableElts)
	{
		if (IsA(lfirst(cell), Constraint))
			check_constraint(&table, lfirst(cell), NULL);
		else if (IsA(lfirst(cell), ColumnDef))
		{
			ColumnDef  *sidecar = check_column(&table, lfirst(cell));

			if (sidecar)
				sidecars = lappend(sidecars, sidecar);
		}
	}
	stmt->tableElts = list_concat(stmt->tableElts, sidecars);
	foreach(cell, stmt->partspec ? stmt->partspec->partParams : NIL)
	{
		PartitionElem *element = lfirst_node(PartitionElem, cell);

		if (ddl_column_called(plan, element->name) || ddl_is_fixed(plan, element->name) ||
			ddl_mentions_carrier(element->expr, &table.named))
			refuse(&table, "have a protected column in the partition key of");
	}
}

/* Does PostgreSQL leave it at a notice, as there is something of that name? */
static bool
is_skipped(const CreateStmt *stmt)
{
	return stmt->if_not_exists &&
		OidIsValid(get_relname_relid(stmt->relation->relname,
									 RangeVarGetCreationNamespace(stmt->relation)));
}

/* CREATE TABLE ... LIKE, INHERITS, PARTITION OF; foreign tables too */
void
ddl_create_before(CreateStmt *stmt, DdlChange *change)
{
	ListCell   *cell;

	foreach(cell, stmt->tableElts)
	{
		TableLikeClause *like = lfirst(cell);
		Oid			relid;

		if (!IsA(like, TableLikeClause))
			continue;
		relid = RangeVarGetRelid(like->relation, NoLock, true);
		if (!OidIsValid(relid) || protection_of(relid) == NULL)
			continue;
		if (is_skipped(stmt))
			return;
		if (IsA(stmt, CreateForeignTableStmt))
			ddl_refuse_foreign("like", like->relation->relname);
		if ((like->options & CREATE_TABLE_LIKE_CONSTRAINTS) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a table like protected table \"%s\" would not be protected",
							like->relation->relname),
					 errhint("Add INCLUDING CONSTRAINTS, which makes it a protected one, or name the columns instead.")));
		change->plan = ddl_plan_of(like->relation);
		if (change->plan == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be owner of protected table \"%s\" to make one like it",
							like->relation->relname)));
		change->created = stmt->relation;
		check_table(stmt, change->plan);
	}
	foreach(cell, stmt->inhRelations)
	{
		ProtectPlan *plan = ddl_plan_of(lfirst(cell));

		if (plan == NULL)
			continue;
		if (is_skipped(stmt))
			return;
		if (stmt->partbound == NULL)
			ddl_refuse(plan, "let another table inherit from", NULL);
		if (IsA(stmt, CreateForeignTableStmt))
			ddl_refuse_foreign("as a partition of", plan->name);
		check_table(stmt, plan);
	}
}
