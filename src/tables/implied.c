/*-------------------------------------------------------------------------
 *
 * implied.c
 *	  CHECK constraints that the seal trigger has made true already.
 *
 * A protected table has CHECK constraints of ours: each carrier IS NULL, each
 * sidecar is sealed.  Those of the application that were moved to the trigger
 * end in OR true.  For every statement PostgreSQL parses, plans and prepares
 * the text of all constraints of the table, which for one row costs more than
 * sealing it; and all of these hold for whatever comes out of the trigger.
 *
 * So after PostgreSQL has prepared a statement, and before it looks at its first
 * row, the constraints of the tables that it writes to are put where it would
 * put them, prepared as it would prepare them, but for those.  An empty place
 * there is a constraint that holds.
 *
 * It is done only where nothing comes between the trigger and the table: the
 * trigger is enabled as it was made, and the last of those before rows.
 * Elsewhere, as in COPY, in partitions that rows are routed to, in a table that
 * is being protected live, and in a server that does not preload the module,
 * the constraints are evaluated.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"

#include "compat.h"
#include "tables/implied.h"
#include "tables/seal.h"

extern Datum envelope_is_sealed(PG_FUNCTION_ARGS);

static ExecutorStart_hook_type prev_ExecutorStart_hook = NULL;

/* The column that an expression is; 0 where it is none */
static AttrNumber
column_of(const Node *node)
{
	return node && IsA(node, Var) ? ((const Var *) node)->varattno : 0;
}

/* Is this "carrier IS NULL", or "envelope_is_sealed(sidecar)"? */
static bool
is_ours(const Node *expression, const ProtectedColumn *column)
{
	if (IsA(expression, NullTest))
	{
		const NullTest *test = (const NullTest *) expression;

		return test->nulltesttype == IS_NULL &&
			column_of((Node *) test->arg) == column->carrier;
	}
	if (IsA(expression, FuncExpr))
	{
		const FuncExpr *call = (const FuncExpr *) expression;
		FmgrInfo	function;

		if (list_length(call->args) != 1 ||
			column_of(linitial(call->args)) != column->sidecar)
			return false;
		fmgr_info(call->funcid, &function);
		return function.fn_addr == envelope_is_sealed;
	}
	return false;
}

/*
 * For each CHECK constraint of a protected table, as its relcache entry numbers
 * them: does it hold for all rows that the seal trigger lets through?  Palloc'd;
 * NULL where that is so of none.
 */
bool *
implied_checks(Relation rel, const Protection *protection)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	bool	   *implied;
	bool		any = false;

	if (constraints == NULL || constraints->num_check == 0 || protection->live)
		return NULL;
	implied = palloc0(constraints->num_check * sizeof(bool));
	for (int i = 0; i < constraints->num_check; i++)
	{
		Node	   *expression = stringToNode(constraints->check[i].ccbin);

		implied[i] = seal_moved_check(expression) != NULL;
		for (int n = 0; n < protection->ncolumns && !implied[i]; n++)
			implied[i] = is_ours(expression, &protection->columns[n]);
		any |= implied[i];
	}
	return any ? implied : NULL;
}

/* Is the seal trigger of a table what each row passes last? */
static bool
trigger_is_last(const TriggerDesc *triggers, const Trigger *seal)
{
	const int16 events = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE;

	if (seal->tgenabled != TRIGGER_FIRES_ALWAYS || seal->tgqual != NULL ||
		seal->tgnattr != 0 || !TRIGGER_FOR_BEFORE(seal->tgtype) ||
		!TRIGGER_FOR_ROW(seal->tgtype) || (seal->tgtype & events) != events)
		return false;
	/* They are fired in the order in which they stand here. */
	for (const Trigger *next = seal + 1;
		 next < triggers->triggers + triggers->numtriggers; next++)
	{
		if (TRIGGER_FOR_BEFORE(next->tgtype) && TRIGGER_FOR_ROW(next->tgtype) &&
			(next->tgtype & events) != 0)
			return false;
	}
	return true;
}

/* Prepare the constraints of a table that a statement writes to. */
static void
prepare_constraints(ResultRelInfo *target, EState *estate)
{
	Relation	rel = target->ri_RelationDesc;
	const Trigger *seal = protection_trigger(rel);
	const bool *implied;
	MemoryContext oldcontext;

	if (seal == NULL || rel->rd_rel->relkind != RELKIND_RELATION ||
		!trigger_is_last(rel->trigdesc, seal) ||
		(implied = seal_implied_checks(rel)) == NULL ||
		RelationGetDescr(rel)->constr->num_check != rel->rd_rel->relchecks)
		return;
	oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);
	executor_prepare_constraints(target, estate, implied);
	MemoryContextSwitchTo(oldcontext);
}

static void
start_executor(QueryDesc *query, int eflags)
{
	ListCell   *cell;

	if (prev_ExecutorStart_hook)
		prev_ExecutorStart_hook(query, eflags);
	else
		standard_ExecutorStart(query, eflags);

	if (query->operation == CMD_DELETE || (eflags & EXEC_FLAG_EXPLAIN_ONLY))
		return;
	foreach(cell, query->estate->es_opened_result_relations)
		prepare_constraints(lfirst(cell), query->estate);
}

/*
 * Called from _PG_init, in a server that preloads the module.
 */
void
implied_install_hooks(void)
{
	prev_ExecutorStart_hook = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
