/*-------------------------------------------------------------------------
 *
 * protect_live.c
 *	  envelope_protect_live: protecting a large table while it is in use.
 *
 *	1. "check": the definition and all rows are looked at: can they be sealed?
 *	2. Sidecars, terms and the trigger are made.  If a column is searchable, or in
 *	   an index, all stay in the clear at first ("clear" in the trigger's
 *	   arguments), and the trigger only keeps the terms.
 *	3. "terms": the rows that are there get their terms, in batches.
 *	4. "index": indexes on terms are built CONCURRENTLY (index_builder.c), beside
 *	   those on the columns.
 *	5. The new indexes take the places of the old ones; constraints move to the
 *	   trigger, those for carriers and sidecars are made, not validated; and what
 *	   is written from then on is sealed ("live").  A value that is not in the
 *	   sidecar is in the carrier yet, and is read from there.  Where nothing is
 *	   searchable this comes at once with step 2.
 *	6. "seal": rows are sealed in batches, by updates that change nothing else.
 *	7. "wait": every transaction that runs is waited for: its snapshot may be
 *	   older, and see rows as they were.
 *	8. "validate": the constraints are validated, which proves that no carrier
 *	   holds a value.
 *	9. The trigger is made anew, without "live".
 *
 * Where it stands is in the catalogs: whoever calls it again after an error or a
 * crash goes on with step 3 or 6.  envelope_unprotect leads back at any time.
 *
 * Updates leave dead rows, which hold plaintext until the table is rewritten.  So
 * the trigger's arguments name the files that it had, by which doctor knows.
 *
 * Locking
 *
 * Steps 2, 5 and 9 take AccessExclusiveLock, for as long as it takes to change
 * catalogs.  Whoever waits for such a lock holds up all who come after; so it is
 * waited for LOCK_MS at most, and asked for again after a while.  Batches lock
 * rows that nobody else has locked, and come back for the others: they wait for
 * nobody.  No transaction of ours that can be waited for waits for others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "compat.h"
#include "lifecycle/index_builder.h"
#include "lifecycle/steps.h"
#include "tables/protect.h"
#include "tables/protect_progress.h"
#include "tables/protection.h"
#include "tables/triggers.h"

PG_FUNCTION_INFO_V1(envelope_protect_live);

/* As many rows are taken to be on a page when batches are cut */
#define ROWS_PER_PAGE	50

/* How long to wait for a lock that holds up others, and between two tries */
#define LOCK_MS			100
#define LOCK_PAUSE_MIN_MS	100
#define LOCK_PAUSE_MAX_MS	5000

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
}			PageRange;

/* A call; what it points to outlives transactions */
typedef struct LiveCall
{
	FunctionCallInfo fcinfo;
	MemoryContext context;
	MemoryContext batch_context;
	Oid			relid;
	int			batch_pages;
	List	   *skipped;		/* of PageRange */
	int64		seen;			/* rows, in this phase */
	int64		done;
}			LiveCall;

/*
 * The definition of the table: can it be protected so?  Between protect_begin
 * and protect_end.
 */
static void
check_definition(ProtectPlan *plan)
{
	ListCell   *cell;

	term_index_check(plan);
	refuse_columns(plan);
	term_index_live_check(plan);

	/* Rows will be updated: a publication has to allow that. */
	foreach(cell, plan->relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			CheckCmdReplicaIdentity(rel, CMD_UPDATE);
		table_close(rel, NoLock);
	}
}

/* The table as it is now, under a lock that is taken, with what a call names */
static ProtectPlan *
plan_call(const LiveCall * call, LOCKMODE lock)
{
	Relation	rel = owned_relation_open(call->relid, lock);
	ProtectPlan *plan = protect_plan(rel, lock);

	refuse_table(rel, plan);
	if (!plan->live)
		protect_plan_call(call->fcinfo, plan, rel);
	table_close(rel, NoLock);
	return plan;
}

/* The same when it has begun; throws where it is not under way any more. */
static ProtectPlan *
plan_again(const LiveCall * call, LOCKMODE lock)
{
	Relation	rel = owned_relation_open(call->relid, lock);
	ProtectPlan *plan = protect_plan(rel, lock);

	table_close(rel, NoLock);
	if (!plan->live)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not being protected any more", plan->name)));
	return plan;
}

/* The partitions of a plan, or the table itself, that have rows; in the call's context */
static List *
leaves_of(const LiveCall * call, const ProtectPlan *plan)
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

/* How many rows PostgreSQL takes a table and its partitions to have */
static int64
estimate_rows(const ProtectPlan *plan)
{
	int64		rows = 0;
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->reltuples > 0)
			rows += (int64) rel->rd_rel->reltuples;
		table_close(rel, NoLock);
	}
	return rows;
}

/* Tell that a phase begins, and commit. */
static void
enter_phase(LiveCall * call, const char *phase)
{
	Relation	rel = owned_relation_open(call->relid, AccessShareLock);
	ProtectPlan *plan = protect_plan(rel, AccessShareLock);

	table_close(rel, NoLock);
	protect_progress_phase(call->relid, phase, estimate_rows(plan));
	call->seen = 0;
	steps_commit();
}

/* Told by the wait for other transactions */
static void
tell_waiting(const char *whom, void *arg)
{
	LiveCall   *call = arg;

	protect_progress_tell(call->relid, call->seen, whom);
	if (whom)
		ereport(NOTICE, (errmsg("waiting for %s to end its transaction", whom)));
}

/*
 * Try to lock the table and its partitions against everybody, and give up after
 * LOCK_MS.
 */
static bool
try_lock_table(Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool locked = false;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		int			guc_level = NewGUCNestLevel();
		Relation	rel;

		(void) set_config_option("lock_timeout", psprintf("%d", LOCK_MS), PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		rel = owned_relation_open(relid, AccessExclusiveLock);
		(void) find_all_inheritors(relid, AccessExclusiveLock, NULL);
		table_close(rel, NoLock);
		AtEOXact_GUC(false, guc_level);
		ReleaseCurrentSubTransaction();
		locked = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return locked;
}

/*
 * Begin a transaction in which the table and its partitions are locked against
 * everybody.
 */
static void
lock_table(const LiveCall * call)
{
	long		ms = LOCK_PAUSE_MIN_MS;

	while (!try_lock_table(call->relid))
	{
		protect_progress_tell_lock(call->relid);
		steps_commit();
		steps_sleep(ms);
		ms = Min(ms * 2, LOCK_PAUSE_MAX_MS);
		steps_commit();
	}
}

/* A constraint that a sidecar is not null, which spares SET NOT NULL a scan */
static char *
not_null_check(const ProtectColumn *column)
{
	return protect_column_name(column->carrier, NOT_NULL_SUFFIX);
}

/* Columns that are new are in the clear at first. */
static void
keep_clear(ProtectPlan *plan)
{
	ListCell   *cell;

	plan->words = lcons(SEAL_ARG_LIVE, rewrite_statistics_words(plan));
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new)
			plan->words = lappend(lappend(plan->words, SEAL_ARG_CLEAR), column->carrier);
	}
	alter_make_trigger(plan);
	triggers_wrap(plan);
}

/*
 * Columns that are new are sealed from now on.  Carriers are no longer NOT NULL;
 * the trigger's words keep that.
 */
static void
start_sealing(ProtectPlan *plan)
{
	ListCell   *cell;

	plan->words = lcons(SEAL_ARG_LIVE, rewrite_statistics_words(plan));
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		List	   *words = column->is_new ? alter_drop_not_null(plan, column) : NIL;

		column->not_null = words != NIL;
		plan->words = list_concat(plan->words, words);
	}
	alter_move_checks(plan, false);
	alter_add_checks(plan, false);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->not_null)
			protect_execute(psprintf("ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s IS NOT NULL) NOT VALID",
									 plan->table, quote_identifier(not_null_check(column)),
									 quote_identifier(column->sidecar)));
	}
	alter_make_trigger(plan);
	triggers_wrap(plan);
}

static bool
has_new_terms(const ProtectPlan *plan)
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

/* Steps 1 and 2 */
static void
begin_table(LiveCall * call)
{
	ProtectPlan *plan = plan_call(call, AccessShareLock);
	OwnerScope	scope;

	protect_begin(plan, &scope);
	check_definition(plan);
	protect_end(&scope);
	steps_commit();

	enter_phase(call, "check");
	plan = plan_call(call, AccessShareLock);
	protect_begin(plan, &scope);
	rewrite_check(plan);
	protect_end(&scope);
	steps_commit();

	lock_table(call);
	plan = plan_call(call, AccessExclusiveLock);
	protect_allow_triggers(plan->owner);
	protect_begin(plan, &scope);
	check_definition(plan);
	alter_add_columns(plan);
	plan->live = true;
	if (has_new_terms(plan))
		keep_clear(plan);
	else
		start_sealing(plan);
	protect_end(&scope);
	steps_commit();
}

/* What a batch does, and to which rows */
typedef struct BatchSql
{
	StringInfoData assignments;
	StringInfoData condition;
}			BatchSql;

/* Rows whose values have no term yet, if that is what is done; else those not sealed */
static void
batch_sql(const ProtectPlan *plan, bool terms, BatchSql * sql)
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
remember(LiveCall * call, const PageRange * range)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->context);
	PageRange  *copy = palloc(sizeof(PageRange));

	*copy = *range;
	call->skipped = lappend(call->skipped, copy);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Update the rows on some pages that are due, but those that others have locked.
 * No application's trigger fires that is not ENABLE ALWAYS or REPLICA.
 */
static void
update_pages(LiveCall * call, const ProtectPlan *plan, const PageRange * range, bool terms)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(range->relid)),
												   get_rel_name(range->relid));
	char	   *pages = psprintf("ctid >= '(%u,0)' AND ctid < '(%u,0)'", range->from, range->to);
	BatchSql	sql;
	OwnerScope	scope;
	int64		due;

	batch_sql(plan, terms, &sql);
	protect_begin(plan, &scope);
	(void) set_config_option("envelope.stored_form", "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("session_replication_role", "replica", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	protect_execute(psprintf("SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE %s)"
							 " FROM ONLY %s WHERE %s", sql.condition.data, table, pages));
	call->seen += number_at(1);
	due = number_at(2);
	if (due > 0)
	{
		protect_execute(psprintf("UPDATE ONLY %s SET %s WHERE ctid = ANY (ARRAY("
								 "SELECT ctid FROM ONLY %s WHERE (%s) AND %s"
								 " FOR NO KEY UPDATE SKIP LOCKED))",
								 table, sql.assignments.data, table, sql.condition.data, pages));
		call->done += SPI_processed;
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
run_batch(LiveCall * call, const PageRange * range, bool terms, const char *waits_for)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->batch_context);
	int64		before = call->done / ROWS_PER_NOTICE;

	steps_throttle(tell_lagging, call);
	update_pages(call, plan_again(call, RowExclusiveLock), range, terms);
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

/*
 * Steps 3 and 6: all pages there are, and then, as long as there are any, those
 * with rows that others had locked.  What comes later the trigger sees to.
 */
static void
update_rows(LiveCall * call, bool terms)
{
	List	   *leaves = leaves_of(call, plan_again(call, AccessShareLock));
	long		ms = RETRY_MIN_MS;
	ListCell   *cell;

	enter_phase(call, terms ? "terms" : "seal");
	call->done = 0;
	foreach(cell, leaves)
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

/* The plan of a table some of whose columns are in the clear; these are its new ones. */
static ProtectPlan *
plan_clear(const LiveCall * call, LOCKMODE lock)
{
	ProtectPlan *plan = plan_again(call, lock);

	(void) protect_plan_clear(plan);
	return plan;
}

static bool
is_clear(const LiveCall * call)
{
	bool		result = protect_plan_clear(plan_again(call, AccessShareLock));

	steps_commit();
	return result;
}

static bool
indexes_are_ready(const LiveCall * call)
{
	ProtectPlan *plan = plan_clear(call, AccessShareLock);
	OwnerScope	scope;
	bool		result;

	protect_begin(plan, &scope);
	result = term_index_live_ready(plan);
	protect_end(&scope);
	steps_commit();
	return result;
}

/* Step 4 */
static void
build_indexes(LiveCall * call)
{
	ProtectPlan *plan;
	OwnerScope	scope;

	if (indexes_are_ready(call))
		return;
	enter_phase(call, "index");
	lock_table(call);
	plan = plan_clear(call, AccessExclusiveLock);
	protect_begin(plan, &scope);
	term_index_live_drop_invalid(plan);
	protect_end(&scope);
	steps_commit();
	index_builder_run(call->relid);
	if (!indexes_are_ready(call))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the process that builds indexes for table \"%s\" has ended before it was done",
						get_rel_name(call->relid)),
				 errhint("The server log may say why. CALL envelope_protect_live again to try once more.")));
}

/* Step 5, for columns that are in the clear; false where an index has gone meanwhile */
static bool
leave_clear(LiveCall * call)
{
	ProtectPlan *plan;
	OwnerScope	scope;
	bool		ready;

	lock_table(call);
	plan = plan_clear(call, AccessExclusiveLock);
	protect_begin(plan, &scope);
	ready = term_index_live_ready(plan);
	if (ready)
	{
		term_index_live_swap(plan);
		start_sealing(plan);
	}
	protect_end(&scope);
	steps_commit();
	return ready;
}

/* Step 8, in a transaction for each column */
static void
validate(LiveCall * call)
{
	int			ncolumns = list_length(plan_again(call, AccessShareLock)->columns);

	enter_phase(call, "validate");
	for (int i = 0; i < ncolumns; i++)
	{
		ProtectPlan *plan = plan_again(call, AccessShareLock);
		ProtectColumn *column = list_nth(plan->columns, i);
		OwnerScope	scope;

		protect_begin(plan, &scope);
		protect_execute(psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s, VALIDATE CONSTRAINT %s",
								 plan->table,
								 quote_identifier(protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)),
								 quote_identifier(column->sidecar)));
		if (alter_has_constraint(plan, not_null_check(column)))
			protect_execute(psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s",
									 plan->table, quote_identifier(not_null_check(column))));
		protect_end(&scope);
		steps_commit();
	}
}

/* The words that name the files of a table and its partitions */
static List *
file_words(const ProtectPlan *plan)
{
	List	   *words = NIL;
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			words = lappend(lappend(words, SEAL_ARG_FILE),
							psprintf("%u", rel->rd_rel->relfilenode));
		table_close(rel, NoLock);
	}
	return words;
}

/* Tell what the terms of the table give away; they are all there now. */
static void
warn_of_terms(LiveCall * call)
{
	ProtectPlan *plan = plan_again(call, AccessShareLock);
	ListCell   *cell;
	OwnerScope	scope;

	foreach(cell, plan->columns)
		((ProtectColumn *) lfirst(cell))->is_new = true;
	protect_begin(plan, &scope);
	term_leak_warn(plan);
	protect_end(&scope);
	steps_commit();
}

/* Step 9 */
static void
finish_table(LiveCall * call)
{
	ProtectPlan *plan;
	ListCell   *cell;
	ListCell   *lc;
	OwnerScope	scope;
	List	   *statistics;

	lock_table(call);
	plan = plan_again(call, AccessExclusiveLock);
	statistics = rewrite_statistics_words(plan);
	protect_begin(plan, &scope);
	alter_set_not_null(plan, false);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		alter_drop_constraint(plan, not_null_check(column));
		foreach(lc, plan->relids)
			RemoveStatistics(lfirst_oid(lc), get_attnum(lfirst_oid(lc), column->carrier));
	}
	plan->live = false;
	plan->words = list_concat(file_words(plan), statistics);
	alter_make_trigger(plan);
	protect_end(&scope);
	protect_progress_end(call->relid);
}

/* All of it, from where it stands */
static void
protect_live(LiveCall * call)
{
	bool		begun = plan_call(call, AccessShareLock)->live;

	steps_commit();
	if (!steps_lock_protection(call->relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("table \"%s\" is being protected live by another session",
						get_rel_name(call->relid)),
				 errhint("See the view envelope.protect_progress.")));
	if (!begun)
		begin_table(call);
	if (is_clear(call))
	{
		update_rows(call, true);
		do
			build_indexes(call);
		while (!leave_clear(call));
	}
	update_rows(call, false);
	enter_phase(call, "wait");
	steps_await_transactions(tell_waiting, call);
	validate(call);
	warn_of_terms(call);
	finish_table(call);
	steps_unlock_protection(call->relid);
}

/*
 * CALL envelope_protect_live(rel regclass, tenant_column name, columns name[],
 * searchable name[], batch_size integer, force boolean)
 */
Datum
envelope_protect_live(PG_FUNCTION_ARGS)
{
	LiveCall	call = {fcinfo};

	for (int i = 0; i < PG_NARGS(); i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("no argument may be null")));
	}
	if (PG_GETARG_INT32(4) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the size of a batch must be positive")));

	protect_require_preload();
	steps_begin(fcinfo, "envelope_protect_live");
	call.relid = PG_GETARG_OID(0);
	call.batch_pages = Max(1, PG_GETARG_INT32(4) / ROWS_PER_PAGE);
	call.context = CurrentMemoryContext;
	call.batch_context = AllocSetContextCreate(CurrentMemoryContext, "envelope batch",
											   ALLOCSET_DEFAULT_SIZES);
	protect_live(&call);
	ereport(NOTICE,
			(errmsg("sealed " INT64_FORMAT " rows", call.done),
			 errdetail("Dead rows, old WAL, backups and standbys may hold them in plaintext still."),
			 errhint("Rewrite the table with VACUUM FULL or pg_repack; envelope_doctor() asks for it until then.")));
	steps_end();
	PG_RETURN_VOID();
}
