/*-------------------------------------------------------------------------
 *
 * utility.c
 *	  Statements other than queries on protected tables.
 *
 * A hook looks at every utility statement that may concern a protected table:
 * COPY (copy.c), what would store values in plaintext elsewhere (ddl_copies.c),
 * and what changes the definition of the table (ddl.c).  It may change the
 * statement, refuse it, or do something more afterwards.  Guards of registered
 * columns (registry.c) that ALTER TABLE ... ENABLE TRIGGER has made ordinary
 * triggers are made ALWAYS again.
 *
 * Statements of ours, which make those changes, pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "tcop/utility.h"

#include "keys/guard.h"
#include "tables/protection.h"
#include "tables/registry.h"
#include "tables/utility.h"

static ProcessUtility_hook_type prev_ProcessUtility_hook = NULL;

/* Statements of ours are being executed, since this transaction level */
static bool ours = false;
static int	ours_level = 0;

/*
 * Say whether the statements that follow are ours; returns what was said
 * before.  An error ends it.
 */
bool
utility_set_ours(bool value)
{
	bool		before = ours;

	ours = value;
	ours_level = GetCurrentTransactionNestLevel();
	return before;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	ours = false;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent_subid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB &&
		ours_level >= GetCurrentTransactionNestLevel())
		ours = false;
}

/* May a statement concern a protected table? */
static bool
is_of_interest(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CopyStmt:
		case T_AlterTableStmt:
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_CreatePublicationStmt:
		case T_AlterPublicationStmt:
		case T_IndexStmt:
		case T_CreateTrigStmt:
		case T_CreateStatsStmt:
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
		case T_DropStmt:
		case T_CreateTableAsStmt:
		case T_RefreshMatViewStmt:
			return !ours && IsTransactionState() &&
				OidIsValid(protection_seal_function());
		default:
			return false;
	}
}

static void
call_next(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		  ProcessUtilityContext context, ParamListInfo params,
		  QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_ProcessUtility_hook)
		prev_ProcessUtility_hook(pstmt, query, read_only_tree, context, params,
								 env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								env, dest, qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	DdlChange	change = {0};
	Oid			guarded = InvalidOid;

	if (!is_of_interest(pstmt->utilityStmt))
	{
		call_next(pstmt, query, read_only_tree, context, params, env, dest, qc);
		return;
	}

	pstmt = copyObject(pstmt);
	if (IsA(pstmt->utilityStmt, AlterTableStmt) &&
		guard_enables_triggers((AlterTableStmt *) pstmt->utilityStmt))
		guarded = RangeVarGetRelid(((AlterTableStmt *) pstmt->utilityStmt)->relation,
								   NoLock, true);
	if (IsA(pstmt->utilityStmt, CopyStmt))
		copy_adapt((CopyStmt *) pstmt->utilityStmt);
	else if (IsA(pstmt->utilityStmt, CreateTableAsStmt) ||
			 IsA(pstmt->utilityStmt, RefreshMatViewStmt))
		ddl_refuse_copy(pstmt->utilityStmt);
	else
		ddl_before(pstmt->utilityStmt, &change);
	call_next(pstmt, query, false, context, params, env, dest, qc);
	ddl_after(&change);
	if (OidIsValid(guarded))
	{
		CommandCounterIncrement();
		registry_enable_guards(guarded);
	}
}

/* Called from _PG_init, in a server that preloads the module. */
void
utility_install_hooks(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	prev_ProcessUtility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
