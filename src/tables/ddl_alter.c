/*-------------------------------------------------------------------------
 *
 * ddl_alter.c
 *	  ALTER TABLE and RENAME of a protected table.
 *
 * What belongs to a protected column goes with it: DROP COLUMN drops the sidecar
 * and term, RENAME renames them, SET NOT NULL is the sidecar's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "tables/ddl.h"
#include "tables/planner.h"
#include "tables/protection.h"
#include "tables/triggers.h"

/* A new constraint, or one that comes with a new column */
static void
check_constraint(ProtectPlan *plan, Constraint *constraint)
{
	ProtectColumn *column;

	if (constraint->contype == CONSTR_NOTNULL)
	{
		column = constraint->keys ? ddl_column_called(plan, strVal(linitial(constraint->keys))) : NULL;
		if (column && plan->live)
			ddl_refuse_live(plan);
		if (column)
			constraint->keys = list_make1(makeString(column->sidecar));
		else if (constraint->keys && ddl_is_fixed(plan, strVal(linitial(constraint->keys))))
			ddl_refuse(plan, "change", strVal(linitial(constraint->keys)));
		return;
	}
	if (plan->live && (ddl_names_fixed(plan, constraint->keys) ||
					   ddl_names_fixed(plan, constraint->including)))
		ddl_refuse_live(plan);
	if (ddl_constrains_carrier(plan, constraint))
		ddl_refuse(plan, "add a constraint on a protected column to", NULL);
}

static void
check_new_column(ProtectPlan *plan, ColumnDef *definition)
{
	ListCell   *cell;

	foreach(cell, definition->constraints)
		check_constraint(plan, lfirst_node(Constraint, cell));
}

/* Let a command drop what belongs to a column, and the trigger be made again. */
static List *
drop_with_column(DdlChange *change, AlterTableCmd *command)
{
	ProtectPlan *plan = change->plan;
	ProtectColumn *column = ddl_column_called(plan, command->name);
	const char *names[] = {column->sidecar, column->term};
	List	   *result = NIL;

	for (int i = 0; i < lengthof(names); i++)
	{
		AlterTableCmd *drop;

		if (names[i] == NULL)
			continue;
		drop = makeNode(AlterTableCmd);
		drop->subtype = AT_DropColumn;
		drop->name = pstrdup(names[i]);
		drop->behavior = command->behavior;
		result = lappend(result, drop);
	}
	plan->columns = list_delete_ptr(plan->columns, column);
	change->make_trigger = true;
	return result;
}

/* Is a column protected in the same way in another table? */
static bool
is_same_column(const ProtectColumn *column, const ProtectColumn *other)
{
	return other != NULL &&
		strcmp(column->sidecar, other->sidecar) == 0 &&
		strcmp(column->context, other->context) == 0 &&
		strcmp(column->term ? column->term : "", other->term ? other->term : "") == 0;
}

/*
 * Refuse a foreign table among what is to become a partition, and a trigger that
 * would be called after the one that seals.
 */
static void
check_attached(const ProtectPlan *plan, Oid relid)
{
	ListCell   *cell;

	LockRelationOid(relid, AccessShareLock);
	foreach(cell, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Relation	rel = relation_open(lfirst_oid(cell), NoLock);

		if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
			ddl_refuse_foreign("as a partition of", plan->name);
		for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		{
			const Trigger *trigger = &rel->trigdesc->triggers[i];

			if (!trigger->tgisinternal && TRIGGER_FOR_ROW(trigger->tgtype) &&
				TRIGGER_FOR_BEFORE(trigger->tgtype) &&
				trigger->tgfoid != protection_seal_function() &&
				strcmp(trigger->tgname, SEAL_TRIGGER) >= 0)
				ddl_refuse(plan, "call a trigger after the one that seals on", NULL);
		}
		relation_close(rel, NoLock);
	}
}

/*
 * A table that is to become a partition: if it is protected it has to be in the
 * same way, and gives up its trigger for the one that comes with it.
 */
static void
attach_before(const ProtectPlan *plan, RangeVar *partition)
{
	ProtectPlan *other = ddl_plan_of(partition);
	Oid			relid = RangeVarGetRelid(partition, NoLock, true);
	ListCell   *cell;
	OwnerScope	scope;

	if (OidIsValid(relid) && object_ownercheck(RelationRelationId, relid, GetUserId()))
		check_attached(plan, relid);
	if (other == NULL)
		return;
	if (list_length(plan->columns) != list_length(other->columns) ||
		strcmp(plan->tenant, other->tenant) != 0)
		ddl_refuse(plan, "attach a table that is protected in another way to", NULL);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (!is_same_column(column, ddl_column_called(other, column->carrier)))
			ddl_refuse(plan, "attach a table that is protected in another way to", NULL);
	}
	protect_begin(other, &scope);
	alter_drop_trigger(other);
	protect_end(&scope);
}

/*
 * Is a constraint NOT NULL of a carrier, as there are since PostgreSQL 18?  While a
 * table is being protected live, it may be the sidecar's.
 */
static bool
is_moved_not_null(const ProtectPlan *plan, const char *name)
{
	Oid			constraint = get_relation_constraint_oid(plan->relid, name, true);
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	bool		result = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_constraint) GETSTRUCT(tuple))->contype == CONSTRAINT_NOTNULL)
	{
		bool		isnull;
		Datum		key = SysCacheGetAttr(CONSTROID, tuple, Anum_pg_constraint_conkey, &isnull);
		char	   *column = get_attname(plan->relid, *(int16 *) ARR_DATA_PTR(DatumGetArrayTypeP(key)),
										 false);

		result = ddl_column_called(plan, column) != NULL || ddl_is_fixed(plan, column);
	}
	ReleaseSysCache(tuple);
	return result;
}

/* What a searchable column's primary key has left takes NOT NULL with it. */
static List *
drop_not_null_of_term(const ProtectPlan *plan, const ProtectColumn *column)
{
	AlterTableCmd *drop;

	if (column->term == NULL || !alter_is_not_null(plan->relid, column->term))
		return NIL;
	drop = makeNode(AlterTableCmd);
	drop->subtype = AT_DropNotNull;
	drop->name = pstrdup(column->term);
	return list_make1(drop);
}

/* One command of ALTER TABLE; returns what has to be done beside it. */
static List *
check_command(DdlChange *change, AlterTableCmd *command)
{
	ProtectPlan *plan = change->plan;
	ProtectColumn *column = ddl_column_called(plan, command->name);
	bool		fixed = ddl_is_fixed(plan, command->name);
	bool		is_tenant = command->name && strcmp(command->name, plan->tenant) == 0;

	if (alter_sets_expression(command) && ddl_mentions_carrier(command->def, plan))
		ddl_refuse(plan, "generate a column from a protected column of", NULL);
	switch (command->subtype)
	{
		case AT_DropColumn:
			if (is_tenant || fixed)
				ddl_refuse(plan, "drop", command->name);
			return column ? drop_with_column(change, command) : NIL;
		case AT_AlterColumnType:
			if (column || is_tenant || fixed)
				ddl_refuse(plan, "change the type of", command->name);
			if (ddl_mentions_carrier(((ColumnDef *) command->def)->raw_default, plan))
				ddl_refuse(plan, "use a protected column to change", NULL);
			break;
		case AT_SetNotNull:
		case AT_DropNotNull:
			if (fixed)
				ddl_refuse(plan, "change", command->name);
			if (column && plan->live)
				ddl_refuse_live(plan);
			if (column)
				command->name = pstrdup(column->sidecar);
			return column && command->subtype == AT_DropNotNull ?
				drop_not_null_of_term(plan, column) : NIL;
		case AT_AddIdentity:
		case AT_SetIdentity:
			if (column || fixed)
				ddl_refuse(plan, "make an identity of", command->name);
			break;
		case AT_ColumnDefault:
			if (fixed)
				ddl_refuse(plan, "change", command->name);
			break;
		case AT_AddConstraint:
			check_constraint(plan, castNode(Constraint, command->def));
			break;
		case AT_DropConstraint:
			if (plan->live && is_moved_not_null(plan, command->name))
				ddl_refuse_live(plan);
			if (ddl_is_own_constraint(plan, command->name))
				ddl_refuse(plan, psprintf("drop constraint \"%s\" of", command->name), NULL);
			break;
		case AT_AddColumn:
			check_new_column(plan, castNode(ColumnDef, command->def));
			break;
		case AT_AddInherit:
		case AT_AddOf:
			ddl_refuse(plan, "let another table inherit from or be", NULL);
		case AT_AttachPartition:
			if (plan->live)
				ddl_refuse_live(plan);
			attach_before(plan, ((PartitionCmd *) command->def)->name);
			change->more_tables = change->wrap_triggers = !planner_shows_stored_form();
			break;
		case AT_ChangeOwner:
			change->new_owner = true;
			break;
		case AT_DetachPartition:
			/* It loses the triggers that it had from the table. */
			if (((PartitionCmd *) command->def)->concurrent)
				ddl_refuse(plan, "detach CONCURRENTLY a partition of", NULL);
			change->detached = ((PartitionCmd *) command->def)->name;
			break;
		case AT_EnableTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			change->enable_trigger = true;
			break;
		case AT_DisableTrig:
			if (command->name && strcmp(command->name, SEAL_TRIGGER) == 0)
				ddl_refuse(plan, "disable the trigger that seals", NULL);
			break;
		default:
			break;
	}
	return NIL;
}

/* A table that is to inherit from a protected one */
static void
refuse_heir(const AlterTableCmd *command)
{
	ProtectPlan *parent = command->subtype == AT_AddInherit ?
		ddl_plan_of(castNode(RangeVar, command->def)) : NULL;

	if (parent)
		ddl_refuse(parent, "let another table inherit from", NULL);
}

void
ddl_alter_table_before(AlterTableStmt *stmt, DdlChange *change)
{
	List	   *more = NIL;
	ListCell   *cell;
	OwnerScope	scope;

	foreach(cell, stmt->cmds)
		refuse_heir(lfirst_node(AlterTableCmd, cell));
	if (stmt->objtype != OBJECT_TABLE ||
		(change->plan = ddl_plan_of(stmt->relation)) == NULL)
		return;
	foreach(cell, stmt->cmds)
		more = list_concat(more, check_command(change, lfirst_node(AlterTableCmd, cell)));
	stmt->cmds = list_concat(stmt->cmds, more);
	if (!change->make_trigger)
		return;
	if (change->plan->live)
		ddl_refuse_live(change->plan);
	protect_begin(change->plan, &scope);
	alter_drop_trigger(change->plan);
	protect_end(&scope);
	change->plan->is_protected = false;
}

/* A column that is renamed takes along what belongs to it. */
static void
rename_column_before(RenameStmt *stmt, ProtectPlan *plan, DdlChange *change)
{
	OwnerScope	scope;

	if (ddl_is_fixed(plan, stmt->subname))
		ddl_refuse(plan, "rename", stmt->subname);
	if (ddl_column_called(plan, stmt->subname) == NULL &&
		strcmp(plan->tenant, stmt->subname) != 0)
		return;
	if (plan->live)
		ddl_refuse_live(plan);
	change->plan = plan;
	change->renamed = stmt->subname;
	change->new_name = stmt->newname;
	change->make_trigger = true;
	protect_begin(plan, &scope);
	alter_drop_trigger(plan);
	protect_end(&scope);
	plan->is_protected = false;
}

void
ddl_rename_before(RenameStmt *stmt, DdlChange *change)
{
	ProtectPlan *plan;

	switch (stmt->renameType)
	{
		case OBJECT_FUNCTION:
		case OBJECT_ROUTINE:
		case OBJECT_SCHEMA:
			change->called = triggers_called();
			return;
		case OBJECT_COLUMN:
			if (stmt->relationType == OBJECT_TABLE &&
				(plan = ddl_plan_of(stmt->relation)) != NULL)
				rename_column_before(stmt, plan, change);
			return;
		case OBJECT_TABCONSTRAINT:
			if ((plan = ddl_plan_of(stmt->relation)) != NULL &&
				ddl_is_own_constraint(plan, stmt->subname))
				ddl_refuse(plan, psprintf("rename constraint \"%s\" of", stmt->subname), NULL);
			return;
		case OBJECT_TRIGGER:
			if ((plan = ddl_plan_of(stmt->relation)) == NULL)
				return;
			if (strcmp(stmt->subname, SEAL_TRIGGER) == 0)
				ddl_refuse(plan, "rename the trigger that seals", NULL);
			if (strcmp(stmt->newname, SEAL_TRIGGER) >= 0)
				ddl_refuse(plan, "call a trigger after the one that seals on", NULL);
			return;
		default:
			return;
	}
}
