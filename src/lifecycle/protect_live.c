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
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "lifecycle/index_builder.h"
#include "lifecycle/protect_live.h"
#include "lifecycle/steps.h"
#include "tables/protect.h"
#include "tables/protect_progress.h"
#include "tables/protection.h"
#include "tables/triggers.h"

PG_FUNCTION_INFO_V1(envelope_protect_live);

/* So often an index is built again after a deadlock, the first time after so long */
#define MAX_DEADLOCKS	7
#define DEADLOCK_PAUSE_MS	500

/* As many rows are taken to be on a page when batches are cut */
#define ROWS_PER_PAGE	50

/* The table as it is now, under a lock that is taken, with what a call names */
static ProtectPlan *
plan_call(const LiveCall *call, LOCKMODE lock)
{
	Relation	rel = owned_relation_open(call->relid, lock);
	ProtectPlan *plan = protect_plan(rel, lock);

	refuse_table(rel, plan);
	if (plan->live)
		protect_plan_resume(call->fcinfo, plan);
	else
		protect_plan_call(call->fcinfo, plan, rel);
	table_close(rel, NoLock);
	return plan;
}

/* The same when it has begun; throws where it is not under way any more. */
ProtectPlan *
live_plan(const LiveCall *call, LOCKMODE lock)
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
void
live_enter_phase(LiveCall *call, const char *phase)
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

	plan->words = lcons(SEAL_ARG_LIVE, samples_words(plan));
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

	plan->words = lcons(SEAL_ARG_LIVE, samples_words(plan));
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		List	   *words = column->is_new ? alter_suspend_not_null(plan, column) : NIL;

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

/* Steps 1 and 2 */
static void
begin_table(LiveCall *call)
{
	ProtectPlan *plan = plan_call(call, AccessShareLock);
	OwnerScope	scope;

	protect_begin(plan, &scope);
	live_check_definition(plan);
	protect_end(&scope);
	steps_commit();

	live_enter_phase(call, "check");
	plan = plan_call(call, AccessShareLock);
	protect_begin(plan, &scope);
	rewrite_check(plan);
	protect_end(&scope);
	steps_commit();

	/* Others may hold its lock for long, and none of ours is held now. */
	protect_allow_triggers(plan->owner);
	steps_commit();

	steps_lock_table(call->relid, protect_progress_tell_lock);
	plan = plan_call(call, AccessExclusiveLock);
	protect_begin(plan, &scope);
	live_check_definition(plan);
	alter_add_columns(plan);
	plan->live = true;
	if (live_has_new_terms(plan))
		keep_clear(plan);
	else
		start_sealing(plan);
	protect_end(&scope);
	steps_commit();
}

/* The plan of a table some of whose columns are in the clear; these are its new ones. */
static ProtectPlan *
plan_clear(const LiveCall *call, LOCKMODE lock)
{
	ProtectPlan *plan = live_plan(call, lock);

	(void) protect_plan_clear(plan);
	return plan;
}

static bool
is_clear(const LiveCall *call)
{
	bool		result = protect_plan_clear(live_plan(call, AccessShareLock));

	steps_commit();
	return result;
}

static bool
indexes_are_ready(const LiveCall *call)
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

/* Drop what an earlier try to build an index has left. */
static void
drop_left_indexes(LiveCall *call)
{
	ProtectPlan *plan = plan_clear(call, AccessShareLock);
	OwnerScope	scope;
	bool		left;

	protect_begin(plan, &scope);
	left = term_index_live_left(plan) != NIL;
	protect_end(&scope);
	steps_commit();
	if (left)
	{
		steps_lock_table(call->relid, protect_progress_tell_lock);
		plan = plan_clear(call, AccessExclusiveLock);
		protect_begin(plan, &scope);
		term_index_live_drop_left(plan);
		protect_end(&scope);
		steps_commit();
	}
}

/*
 * Step 4.  There may be new partitions, or names, when the indexes are built that
 * were wanted; and after a deadlock it is tried again, later each time, and not for
 * ever.
 */
static void
build_indexes(LiveCall *call)
{
	int			ndeadlocks = 0;

	while (!indexes_are_ready(call))
	{
		live_enter_phase(call, "index");
		drop_left_indexes(call);
		if (index_builder_run(call->relid, ndeadlocks < MAX_DEADLOCKS))
			continue;
		ereport(NOTICE,
				(errmsg("building an index for table \"%s\" was ended by a deadlock, and is tried again",
						get_rel_name(call->relid))));
		steps_commit();
		steps_sleep((long) DEADLOCK_PAUSE_MS << ndeadlocks++);
		steps_commit();
	}
}

/* Step 5, for columns that are in the clear; false where an index has gone meanwhile */
static bool
leave_clear(LiveCall *call)
{
	ProtectPlan *plan;
	OwnerScope	scope;
	bool		ready;

	steps_lock_table(call->relid, protect_progress_tell_lock);
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

/*
 * The lock that VALIDATE CONSTRAINT wants, on the table and its partitions.  Who
 * has it may be building an index CONCURRENTLY, and wait for older snapshots: so
 * it is waited for with none.
 */
static void
lock_to_validate(Oid relid)
{
	ListCell   *cell;

	LockRelationOid(relid, ShareUpdateExclusiveLock);
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		InvalidateCatalogSnapshot();
		LockRelationOid(lfirst_oid(cell), ShareUpdateExclusiveLock);
	}
}

/* Step 8, in a transaction for each column */
static void
validate(LiveCall *call)
{
	int			ncolumns = list_length(live_plan(call, AccessShareLock)->columns);

	live_enter_phase(call, "validate");
	for (int i = 0; i < ncolumns; i++)
	{
		ProtectPlan *plan;
		ProtectColumn *column;
		OwnerScope	scope;

		lock_to_validate(call->relid);
		plan = live_plan(call, AccessShareLock);
		column = list_nth(plan->columns, i);
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
warn_of_terms(LiveCall *call)
{
	ProtectPlan *plan = live_plan(call, AccessShareLock);
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
finish_table(LiveCall *call)
{
	ProtectPlan *plan;
	ListCell   *cell;
	ListCell   *lc;
	OwnerScope	scope;
	List	   *statistics;

	steps_lock_table(call->relid, protect_progress_tell_lock);
	plan = live_plan(call, AccessExclusiveLock);
	statistics = samples_words(plan);
	protect_begin(plan, &scope);
	alter_resume_not_null(plan, false);
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
protect_live(LiveCall *call)
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
		live_update_rows(call, true);
		do
			build_indexes(call);
		while (!leave_clear(call));
	}
	live_update_rows(call, false);
	live_enter_phase(call, "wait");
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
