/*-------------------------------------------------------------------------
 *
 * ddl_beside.c
 *	  Objects beside a protected table: indexes, triggers, statistics, publications.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"

#include "compat.h"
#include "settings.h"
#include "tables/ddl.h"
#include "tables/planner.h"
#include "tables/protection.h"

/*
 * Is an expression, not analyzed yet, the key id of a sidecar?  It tells of no
 * value, and rotation looks for keys by an index on it.
 */
static bool
is_key_id(const ProtectPlan *plan, Node *expr)
{
	FuncCall   *call = (FuncCall *) expr;
	Oid			argument = BYTEAOID;
	Oid			function;
	ListCell   *cell;

	if (expr == NULL || !IsA(expr, FuncCall) || list_length(call->args) != 1 ||
		!IsA(linitial(call->args), ColumnRef) ||
		strcmp(strVal(llast(call->funcname)), KEY_ID_FUNCTION) != 0)
		return false;
	function = LookupFuncName(call->funcname, 1, &argument, true);
	if (!OidIsValid(function) ||
		getExtensionOfObject(ProcedureRelationId, function) != get_extension_oid("envelope", true))
		return false;
	foreach(cell, plan->columns)
	{
		Node	   *last = llast(((ColumnRef *) linitial(call->args))->fields);

		if (IsA(last, String) &&
			strcmp(strVal(last), ((ProtectColumn *) lfirst(cell))->sidecar) == 0)
			return true;
	}
	return false;
}

/*
 * The columns of an index: a searchable one stands for its term.  While the table
 * is being protected live, terms have the indexes that come with that alone.
 */
void
ddl_index_before(IndexStmt *stmt)
{
	ProtectPlan *plan = ddl_plan_of(stmt->relation);
	bool		has_tenant = false;
	bool		has_term = false;
	ListCell   *cell;

	if (plan == NULL)
		return;
	foreach(cell, stmt->indexParams)
	{
		IndexElem  *element = lfirst_node(IndexElem, cell);
		ProtectColumn *column = ddl_column_called(plan, element->name);

		if (element->name && strcmp(element->name, plan->tenant) == 0)
			has_tenant = true;
		if (ddl_mentions_carrier(element->expr, plan) && !is_key_id(plan, element->expr))
			ddl_refuse(plan, "index an expression over a protected column of", NULL);
		if (plan->live && ddl_is_fixed(plan, element->name))
			ddl_refuse_live(plan);
		if (column == NULL)
			continue;
		if (column->clear)
			ddl_refuse_live(plan);
		if (column->term == NULL || element->opclass || element->collation ||
			(strcmp(stmt->accessMethod, "btree") != 0 && strcmp(stmt->accessMethod, "hash") != 0))
			ddl_refuse(plan, "index", column->carrier);
		element->name = pstrdup(column->term);
		has_term = true;
	}
	foreach(cell, stmt->indexIncludingParams)
	{
		const char *name = lfirst_node(IndexElem, cell)->name;

		if (ddl_column_called(plan, name))
			ddl_refuse(plan, "include in an index", name);
		if (plan->live && ddl_is_fixed(plan, name))
			ddl_refuse_live(plan);
	}
	if (ddl_mentions_carrier(stmt->whereClause, plan))
		ddl_refuse(plan, "have an index whose predicate looks at a protected column of", NULL);
	if (stmt->unique && has_term && !has_tenant)
		ddl_refuse(plan, "make unique across tenants a protected column of", NULL);
}

void
ddl_trigger_before(CreateTrigStmt *stmt, DdlChange *change)
{
	ProtectPlan *plan = ddl_plan_for(stmt->relation, false);

	if (plan && stmt->row && stmt->timing == TRIGGER_TYPE_BEFORE &&
		strcmp(stmt->trigname, SEAL_TRIGGER) >= 0)
		ddl_refuse(plan, "call a trigger after the one that seals on", NULL);
	change->plan = stmt->row ? plan : NULL;
	/* Who works on what is stored gets it in triggers too, as pg_repack's. */
	change->wrap_triggers = !planner_shows_stored_form();
}

void
ddl_statistics_before(CreateStatsStmt *stmt)
{
	ProtectPlan *plan;
	ListCell   *cell;

	if (stmt->relations == NIL || !IsA(linitial(stmt->relations), RangeVar) ||
		(plan = ddl_plan_of(linitial(stmt->relations))) == NULL)
		return;
	foreach(cell, stmt->exprs)
	{
		StatsElem  *element = lfirst_node(StatsElem, cell);

		if (ddl_column_called(plan, element->name) || ddl_mentions_carrier(element->expr, plan))
			ddl_refuse(plan, "keep statistics on a protected column of", NULL);
	}
}

/* Tables of a publication: it would send of a carrier what is stored, null. */
void
ddl_publication_before(List *objects)
{
	ListCell   *cell;

	foreach(cell, objects)
	{
		const PublicationTable *table = lfirst_node(PublicationObjSpec, cell)->pubtable;
		ProtectPlan *plan = table ? ddl_plan_of(table->relation) : NULL;

		if (plan && (ddl_names_carrier(plan, table->columns) ||
					 ddl_mentions_carrier(table->whereClause, plan)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot publish protected table \"%s\" by a protected column",
							plan->name),
					 errdetail("A row filter would look at the null that is stored in it, and a column list would send that."),
					 errhint("Publish the table without a list, or name the columns that hold what is sealed in place of it.")));
	}
}

/* DROP TRIGGER of ours; pg_restore --clean begins with it */
void
ddl_drop_before(DropStmt *stmt)
{
	ListCell   *cell;

	if (stmt->removeType != OBJECT_TRIGGER)
		return;
	foreach(cell, stmt->objects)
	{
		List	   *names = list_copy(lfirst_node(List, cell));
		ProtectPlan *plan;

		if (strcmp(strVal(llast(names)), SEAL_TRIGGER) != 0)
			continue;
		plan = ddl_plan_of(makeRangeVarFromNameList(list_delete_last(names)));
		if (plan && !envelope_allow_drop_extension)
			ddl_refuse(plan, "drop the trigger that seals of", NULL);
	}
}
