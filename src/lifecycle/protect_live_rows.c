/*-------------------------------------------------------------------------
 *
 * protect_live_rows.c
 *	  Updating every row of a table that is being protected live.
 *
 * Once to make the terms and once to seal: by updates in batches that change
 * nothing, of which the trigger makes what is to be stored.  A batch is the rows
 * on some pages that are due, a transaction of its own, done as the table's
 * owner; the application's triggers do not fire, but those that are ENABLE ALWAYS
 * or REPLICA.
 *
 * Rows are locked first, those that nobody else has locked.  Pages with others
 * are come back to, until none are left; so nobody is waited for with locks held.
 * A row that somebody else has changed meanwhile is not due any more, because the
 * trigger was there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "lifecycle/protect_live.h"
#include "lifecycle/steps.h"
#include "tables/protect.h"
#include "tables/protect_progress.h"

/* Between two looks at rows that others have locked */
#define RETRY_MIN_MS	20
#define RETRY_MAX_MS	1000

/* How often to tell of progress by a NOTICE */
#define ROWS_PER_NOTICE	100000

/* Pages of a table that are to be looked at again */
typedef struct PageRange
{
	Oid			relid;
	BlockNumber from;
	BlockNumber to;
} PageRange;

/* The partitions of a plan, or the table itself, that have rows; in the call's context */
static List *
leaves_of(const LiveCall *call, const ProtectPlan *plan)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->context);
	List	   *leaves = NIL;
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			leaves = lappend_oid(leaves, lfirst_oid(cell));
	}
	MemoryContextSwitchTo(oldcontext);
	return leaves;
}

/* What a batch does, and to which rows */
typedef struct BatchSql
{
	StringInfoData assignments;
	StringInfoData condition;
} BatchSql;

/* Rows whose values have no term yet, if that is what is done; else those not sealed */
static void
batch_sql(const ProtectPlan *plan, bool terms, BatchSql *sql)
{
	ListCell   *cell;

	initStringInfo(&sql->assignments);
	initStringInfo(&sql->condition);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		const char *name = quote_identifier(column->carrier);

		if (terms && (!column->clear || column->term == NULL))
			continue;
		appendStringInfo(&sql->assignments, "%s%s = %s",
						 sql->assignments.len ? ", " : "", name, name);
		appendStringInfo(&sql->condition, "%s%s IS NOT NULL",
						 sql->condition.len ? " OR " : "", name);
		if (terms)
			appendStringInfo(&sql->condition, " AND %s IS NULL", quote_identifier(column->term));
	}
}

/* A number that a query has given */
static int64
number_at(int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									   column, &isnull));
}

/* Come back to pages. */
static void
remember(LiveCall *call, const PageRange *range)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->context);
	PageRange  *copy = palloc(sizeof(PageRange));

	*copy = *range;
	call->skipped = lappend(call->skipped, copy);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Become the table's owner to work on what is stored, until protect_end.  No
 * application's trigger fires that is not ENABLE ALWAYS or REPLICA.
 */
static void
begin_rows(const ProtectPlan *plan, OwnerScope *scope)
{
	protect_begin(plan, scope);
	(void) set_config_option("envelope.stored_form", "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("session_replication_role", "replica", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Update the rows on some pages that are due, but those that others have locked.
 */
static void
update_pages(LiveCall *call, const ProtectPlan *plan, const PageRange *range, bool terms)
{
	char	   *table = protect_table_name(range->relid);
	char	   *pages = psprintf("ctid >= '(%u,0)' AND ctid < '(%u,0)'", range->from, range->to);
	BatchSql	sql;
	OwnerScope	scope;
	int64		due;
	int64		locked;

	batch_sql(plan, terms, &sql);
	begin_rows(plan, &scope);
	protect_execute(psprintf("SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE %s)"
							 " FROM ONLY %s WHERE %s", sql.condition.data, table, pages));
	call->seen += number_at(1);
	due = number_at(2);
	if (due > 0)
	{
		/*
		 * What is locked is there to be updated, or else a trigger prevents
		 * it.
		 */
		protect_execute(psprintf("SELECT pg_catalog.count(*) FROM (SELECT 1 FROM ONLY %s"
								 " WHERE (%s) AND %s FOR NO KEY UPDATE SKIP LOCKED) s",
								 table, sql.condition.data, pages));
		locked = number_at(1);
		protect_execute(psprintf("UPDATE ONLY %s SET %s WHERE ctid = ANY (ARRAY("
								 "SELECT ctid FROM ONLY %s WHERE (%s) AND %s"
								 " FOR NO KEY UPDATE SKIP LOCKED))",
								 table, sql.assignments.data, table, sql.condition.data, pages));
		call->done += SPI_processed;
		if ((int64) SPI_processed < locked)
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
					 errmsg("a trigger keeps rows of table %s from being updated", table),
					 errdetail("It is ENABLE ALWAYS or REPLICA, and so fires here too.")));
		if ((int64) SPI_processed < due)
			remember(call, range);
	}
	protect_end(&scope);
}

/* Told by the wait for standbys */
static void
tell_lagging(const char *whom, void *arg)
{
	LiveCall   *call = arg;

	protect_progress_tell(call->relid, call->seen, whom);
	if (whom)
		ereport(NOTICE, (errmsg("waiting for %s to catch up", whom)));
}

/* One batch, in a transaction */
static void
run_batch(LiveCall *call, const PageRange *range, bool terms, const char *waits_for)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->batch_context);
	int64		before = call->done / ROWS_PER_NOTICE;
	ProtectPlan *plan;

	steps_throttle(tell_lagging, call);
	plan = live_plan(call, RowExclusiveLock);
	if (list_member_oid(plan->relids, range->relid))
		update_pages(call, plan, range, terms);
	protect_progress_tell(call->relid, call->seen, waits_for);
	steps_commit();
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(call->batch_context);
	if (call->done / ROWS_PER_NOTICE != before)
		ereport(NOTICE, (errmsg("%s " INT64_FORMAT " rows",
								terms ? "made terms of" : "sealed", call->done)));
}

static BlockNumber
count_pages(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	BlockNumber pages;

	if (rel == NULL)
		return 0;
	pages = RelationGetNumberOfBlocks(rel);
	table_close(rel, NoLock);
	return pages;
}

/* Update the rows on all pages there are, but those that others have locked. */
static void
update_tables(LiveCall *call, bool terms)
{
	ListCell   *cell;

	foreach(cell, leaves_of(call, live_plan(call, AccessShareLock)))
	{
		PageRange	range = {lfirst_oid(cell)};
		BlockNumber pages = count_pages(range.relid);

		steps_commit();
		for (; range.from < pages; range.from = range.to)
		{
			range.to = pages - range.from > call->batch_pages ?
				range.from + call->batch_pages : pages;
			run_batch(call, &range, terms, NULL);
		}
	}
}

/* Come back to rows that others had locked, as long as there are any. */
static void
update_skipped(LiveCall *call, bool terms)
{
	long		ms = RETRY_MIN_MS;
	ListCell   *cell;

	while (call->skipped != NIL)
	{
		List	   *again = call->skipped;
		int64		seen = call->seen;

		call->skipped = NIL;
		foreach(cell, again)
		{
			call->seen = seen;
			run_batch(call, lfirst(cell), terms, "rows that other transactions have locked");
		}
		call->seen = seen;
		list_free_deep(again);
		if (call->skipped != NIL)
			steps_sleep(ms);
		ms = Min(ms * 2, RETRY_MAX_MS);
	}
}

/* Is there a row that is due?  It is looked at all of them. */
static bool
rows_are_left(LiveCall *call, bool terms)
{
	ProtectPlan *plan = live_plan(call, AccessShareLock);
	bool		result = false;
	BatchSql	sql;
	OwnerScope	scope;
	ListCell   *cell;

	batch_sql(plan, terms, &sql);
	begin_rows(plan, &scope);
	foreach(cell, plan->relids)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			result |= protect_query(psprintf("SELECT 1 FROM ONLY %s WHERE %s LIMIT 1",
											 protect_table_name(lfirst_oid(cell)), sql.condition.data)) != NULL;
	}
	protect_end(&scope);
	steps_commit();
	return result;
}

/*
 * Make the terms of all rows that have none, or seal all that are not sealed.
 *
 * What is written meanwhile the trigger sees to.  But VACUUM FULL, say, may have
 * put rows on pages where we had been; so it is looked for some in the end.  None
 * can come after that.
 */
void
live_update_rows(LiveCall *call, bool terms)
{
	live_enter_phase(call, terms ? "terms" : "seal");
	call->done = 0;
	do
	{
		call->seen = 0;
		update_tables(call, terms);
		update_skipped(call, terms);
	} while (rows_are_left(call, terms));
}
