/*-------------------------------------------------------------------------
 *
 * planner.c
 *	  Statements on protected tables are planned as what is stored.
 *
 * A protected table is the application's own table, whose protected columns
 * (carriers) are null and have their values sealed in columns beside them.
 * Parser, rewriter, privileges and row-level security see that table; then,
 * before PostgreSQL plans a statement, every reference to a carrier is replaced
 * (substitute.c), comparisons that an index can answer are added (search.c).
 * PostgreSQL plans what comes out as it plans anything else.
 *
 * All statements pass the hook, those of functions, rules, views and stored
 * bodies too; what gets past it, queries that PostgreSQL itself builds while it
 * plans, would read nulls.  So a second hook looks at every table that a plan
 * reads, and refuses one that still reads a carrier.
 *
 * What concerns no protected table costs a look at its range table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "replication/walsender.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "settings.h"
#include "tables/arbiters.h"
#include "tables/functions.h"
#include "tables/inline.h"
#include "tables/planner.h"
#include "tables/substitute.h"

static planner_hook_type prev_planner_hook = NULL;
static set_rel_pathlist_hook_type prev_set_rel_pathlist_hook = NULL;

/*
 * Does this session see protected tables as they are stored?  Replication sends
 * what is stored.
 */
bool
planner_shows_stored_form(void)
{
	return envelope_stored_form || am_walsender;
}

static PlannedStmt *
plan_statement(Query *parse, const char *query_string, int cursor_options,
			   ParamListInfo params)
{
	PlannerGlobal *inlined = NULL;
	Substitution substitution = {params, false};
	PlannedStmt *result;
	bool		substituted = false;

	if (parse->commandType != CMD_UTILITY && !planner_shows_stored_form() &&
		inline_and_find(parse, params, &inlined))
	{
		parse = substitute_query(parse, &substitution);
		substituted = true;
	}

	if (prev_planner_hook)
		result = prev_planner_hook(parse, query_string, cursor_options, params);
	else
		result = standard_planner(parse, query_string, cursor_options, params);

	if (substituted)
		arbiters_complete(result);
	if (inlined)
	{
		result->invalItems = list_concat(result->invalItems, inlined->invalItems);
		result->dependsOnRole |= inlined->dependsOnRole;
	}
	if (substitution.terms_known)
	{
		/* Changes of keys invalidate these; a plan made before is made anew. */
		result->relationOids = lappend_oid(result->relationOids,
										   catalog_relation_if_any("tenants"));
		result->relationOids = lappend_oid(result->relationOids,
										   catalog_relation_if_any("tenant_keys"));
	}
	return result;
}

pg_noreturn static void
report_not_substituted(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the statement cannot read protected table \"%s\" in this way",
					get_rel_name(relid)),
			 errdetail("Its protected columns would read as null.")));
}

/*
 * Refuse a plan that reads carriers, or a protected table through a parent that
 * is not: there null would be read where a value is.
 */
static void
check_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	Protection *protection;

	if (prev_set_rel_pathlist_hook)
		prev_set_rel_pathlist_hook(root, rel, rti, rte);
	if (planner_shows_stored_form() ||
		(protection = entry_protection(rte)) == NULL)
		return;

	if (rel->reloptkind == RELOPT_OTHER_MEMBER_REL)
	{
		Index		parent = root->append_rel_array[rti]->parent_relid;
		RangeTblEntry *parent_rte = planner_rt_fetch(parent, root);

		if (parent_rte->rtekind == RTE_RELATION &&
			entry_protection(parent_rte) == NULL)
			report_not_substituted(rte->relid);
		return;
	}
	if (protection_reads_carriers(protection))
		return;
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (!bms_is_empty(rel->attr_needed[protection->columns[i].carrier - rel->min_attr]))
			report_not_substituted(rte->relid);
	}
}

/*
 * Called from _PG_init, in a server that preloads the module.
 */
void
planner_install_hooks(void)
{
	prev_planner_hook = planner_hook;
	planner_hook = plan_statement;
	prev_set_rel_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = check_paths;
}
