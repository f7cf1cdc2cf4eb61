/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  What changes the definition of a protected table.
 *
 * A protected table is altered as any other is; what belongs to a protected
 * column goes with it: DROP COLUMN drops the sidecar and term, RENAME renames
 * them, SET NOT NULL is the sidecar's.  The trigger's arguments name columns, so
 * it is dropped before such a change and made again after it.
 *
 * What would put plaintext on disk, or look at the NULLs that are there, is
 * refused: another type, new constraints, expressions over a protected column,
 * publications by one.
 * The way out is always to unprotect the table, change it, and protect it again.
 *
 * ALTER TABLE and RENAME are looked at in ddl_alter.c, partitions and tables like it
 * in ddl_create.c, other objects beside a table in ddl_beside.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "keys/store.h"
#include "tables/ddl.h"
#include "tables/protection.h"
#include "tables/triggers.h"

/*
 * Look at a statement before it is executed; it may be changed in place.
 */
void
ddl_before(Node *stmt, DdlChange *change)
{
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			ddl_alter_table_before((AlterTableStmt *) stmt, change);
			break;
		case T_RenameStmt:
			ddl_rename_before((RenameStmt *) stmt, change);
			break;
		case T_IndexStmt:
			ddl_index_before((IndexStmt *) stmt);
			break;
		case T_CreateTrigStmt:
			ddl_trigger_before((CreateTrigStmt *) stmt, change);
			break;
		case T_CreateStatsStmt:
			ddl_statistics_before((CreateStatsStmt *) stmt);
			break;
		case T_CreatePublicationStmt:
			ddl_publication_before(((CreatePublicationStmt *) stmt)->pubobjects);
			break;
		case T_AlterPublicationStmt:
			ddl_publication_before(((AlterPublicationStmt *) stmt)->pubobjects);
			break;
		case T_AlterObjectSchemaStmt:
			if (((AlterObjectSchemaStmt *) stmt)->objectType != OBJECT_TABLE)
				change->called = triggers_called();
			break;
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			ddl_create_before((CreateStmt *) stmt, change);
			break;
		case T_DropStmt:
			ddl_drop_before((DropStmt *) stmt);
			break;
		default:
			break;
	}
}

/* Call what belongs to a renamed column after it. */
static void
rename_with_column(ProtectPlan *plan, ProtectColumn *column, char *new_name)
{
	char	   *sidecar = protect_column_name(new_name, SIDECAR_SUFFIX);
	char	   *term = protect_column_name(new_name, TERM_SUFFIX);

	protect_execute(psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", plan->table,
							 quote_identifier(column->sidecar), quote_identifier(sidecar)));
	protect_execute(psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", plan->table,
							 quote_identifier(column->sidecar), quote_identifier(sidecar)));
	protect_execute(psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", plan->table,
							 quote_identifier(protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)),
							 quote_identifier(protect_column_name(new_name, PLAIN_CHECK_SUFFIX))));
	if (column->term)
	{
		protect_execute(psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", plan->table,
								 quote_identifier(column->term), quote_identifier(term)));
		column->term = term;
	}
	column->carrier = new_name;
	column->sidecar = sidecar;
}

/*
 * Has the statement made this table?  CREATE TABLE IF NOT EXISTS leaves one that
 * another session made meanwhile as it is, and whose that is does not matter.
 */
static bool
is_new(Oid relid)
{
	Relation	rel = RelationIdGetRelation(relid);
	bool		result = false;

	if (RelationIsValid(rel))
	{
		result = rel->rd_createSubid == GetCurrentSubTransactionId();
		RelationClose(rel);
	}
	return result;
}

/*
 * Put a plan's names on the table that was made like its own, or was part of it.
 */
static void
plan_created(DdlChange *change)
{
	RangeVar   *table = change->created ? change->created : change->detached;
	Oid			relid = RangeVarGetRelid(table, NoLock, true);
	ProtectPlan *plan = change->plan;

	if (!OidIsValid(relid) || protection_of(relid) != NULL ||
		(change->created && !is_new(relid)))
	{
		change->plan = NULL;
		return;
	}
	plan->relid = relid;
	plan->name = get_rel_name(relid);
	plan->table = protect_table_name(relid);
	plan->is_protected = false;
	change->make_trigger = true;
}

/*
 * Do what is left to do when the statement has been executed.
 */
void
ddl_after(DdlChange *change)
{
	ProtectPlan *plan = change->plan;
	OwnerScope	scope;
	ProtectColumn *column;

	triggers_follow(change->called);
	if (plan == NULL)
		return;
	CommandCounterIncrement();
	if (change->created || change->detached)
		plan_created(change);
	if (change->more_tables)
		plan->relids = find_all_inheritors(plan->relid, NoLock, NULL);
	if (change->wrap_triggers)
		triggers_wrap(plan);
	if (change->plan && (change->new_owner || change->make_trigger))
	{
		plan->owner = relation_owner(plan->relid);
		protect_allow_triggers(plan->owner);
	}
	if (change->plan == NULL || (!change->make_trigger && !change->enable_trigger))
		return;

	protect_begin(plan, &scope);
	if (change->renamed)
	{
		column = ddl_column_called(plan, change->renamed);
		if (column)
			rename_with_column(plan, column, change->new_name);
		else
			plan->tenant = change->new_name;
	}
	if (change->make_trigger && plan->columns != NIL)
		alter_make_trigger(plan);
	else if (change->enable_trigger)
		protect_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
								 plan->table, SEAL_TRIGGER));
	protect_end(&scope);
}
