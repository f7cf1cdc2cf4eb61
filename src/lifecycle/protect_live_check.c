/*-------------------------------------------------------------------------
 *
 * protect_live_check.c
 *	  Which tables cannot be protected while they are in use.
 *
 * All of it is refused before anything is written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "lifecycle/protect_live.h"
#include "tables/protect.h"

/* Refuse (0A000) constraints that a row may violate that is there. */
static void
refuse_not_valid(const ProtectPlan *plan, Oid relid)
{
	char	   *name = protect_query(psprintf("SELECT c.conname FROM pg_catalog.pg_constraint c"
											  " WHERE c.conrelid = %u AND c.contype IN ('c', 'n') AND NOT c.convalidated"
											  " AND COALESCE((pg_catalog.to_jsonb(c) ->> 'conenforced')::pg_catalog.bool, true)",
											  relid));

	if (name)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be protected live", plan->name),
				 errdetail("Constraint \"%s\" is not valid: a row that violates it could not be updated.", name),
				 errhint("Validate the constraint, or use envelope_protect.")));
}

/*
 * Refuse (0A000) NOT NULL of a partition alone: the trigger's words, which keep it
 * meanwhile, are the same in all partitions.
 */
static void
refuse_not_null(const ProtectPlan *plan, Oid relid)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new && alter_is_not_null(relid, column->carrier) &&
			!alter_is_not_null(plan->relid, column->carrier))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" cannot be protected live", plan->name),
					 errdetail("Column \"%s\" is NOT NULL in partition \"%s\" alone.",
							   column->carrier, get_rel_name(relid)),
					 errhint("Make it NOT NULL in the whole table, or use envelope_protect.")));
	}
}

bool
live_has_new_terms(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new && column->term)
			return true;
	}
	return false;
}

/* Refuse (0A000) terms of a temporary table, which no other process can index. */
static void
refuse_temporary(const ProtectPlan *plan)
{
	if (get_rel_persistence(plan->relid) == RELPERSISTENCE_TEMP && live_has_new_terms(plan))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be protected live", plan->name),
				 errdetail("It is temporary, and an index on terms is built by another process."),
				 errhint("Use envelope_protect: no other session waits for it.")));
}

/*
 * The definition of the table: can it be protected so?  Between protect_begin
 * and protect_end.
 */
void
live_check_definition(ProtectPlan *plan)
{
	ListCell   *cell;

	term_index_check(plan);
	refuse_columns(plan);
	term_index_live_check(plan);
	refuse_temporary(plan);

	/* Every row will be updated: nothing may stand in the way of that. */
	foreach(cell, plan->relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			CheckCmdReplicaIdentity(rel, CMD_UPDATE);
		table_close(rel, NoLock);
		refuse_not_valid(plan, lfirst_oid(cell));
		refuse_not_null(plan, lfirst_oid(cell));
	}
}
