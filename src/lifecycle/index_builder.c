/*-------------------------------------------------------------------------
 *
 * index_builder.c
 *	  A process that builds indexes on terms of a table that is in use.
 *
 * CREATE INDEX CONCURRENTLY commits on the way, and waits for all transactions
 * with an older snapshot.  So no procedure can execute it, and nobody can wait
 * for it in a transaction that has one.  A background worker executes it:
 *
 *	1. The procedure starts the worker, telling it database and table, and looks
 *	   after it from transactions that hold nothing (steps.c).  It passes on what
 *	   PostgreSQL tells of the progress.
 *	2. The worker connects, finds in the catalogs which indexes are wanted
 *	   (term_index_live.c), and builds those that are not there, one after the
 *	   other, as the table's owner.
 *	3. It ends, and leaves word of how in the row that tells the progress, without
 *	   what an error says of values.
 *	4. The procedure looks whether all indexes that are wanted by then are there and
 *	   valid, and starts again where they are not.
 *
 * If the procedure is cancelled, or its session ends, it ends the worker.  What
 * the worker leaves then is an invalid index, which the next call drops.
 *
 * The index is defined by DefineIndex and not by a statement: the worker has
 * logged in as a superuser, and nothing but the expressions of an index, which
 * PostgreSQL evaluates in a restricted way, may run of what others have written.
 * To parse them evaluates some of it too, such as a literal of a domain, and is
 * restricted by us.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "parser/parse_utilcmd.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "lifecycle/index_builder.h"
#include "lifecycle/steps.h"
#include "tables/protect.h"
#include "tables/protect_progress.h"
#include "tables/protection.h"

/* How often to look at the worker's progress */
#define LOOK_MS		200

/* What a worker is told */
typedef struct BuildJob
{
	Oid			database;
	Oid			relid;
} BuildJob;

/* An index to be built, in memory that outlives transactions */
typedef struct Build
{
	Oid			relid;
	IndexStmt  *stmt;
	char	   *shown;
} Build;

/* What the worker is at, for an error */
static const Build *building = NULL;

static void
end_worker(int code, Datum arg)
{
	TerminateBackgroundWorker((BackgroundWorkerHandle *) DatumGetPointer(arg));
}

/* Wait until the worker has ended, in transactions that hold nothing. */
static void
await_worker(Oid relid, BackgroundWorkerHandle *handle)
{
	pid_t		pid = 0;

	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
	{
		protect_progress_tell_index(relid, (int) pid);
		steps_commit();
		steps_sleep(LOOK_MS);
		steps_commit();
	}
}

/*
 * Have the indexes on terms built that a table's new columns want, those that
 * are not there.  Commits on the way.  Throws what the worker has thrown; 53000
 * where no worker could be started.
 *
 * Returns false where the worker was the victim of a deadlock and may_retry.  That
 * is nobody's fault: whoever waits for a strong lock on the table with a snapshot,
 * as CLUSTER does, waits for the worker, which waits for all older snapshots to go.
 */
bool
index_builder_run(Oid relid, bool may_retry)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	BuildJob	job = {MyDatabaseId, relid};
	char	   *message;
	int			sqlerrcode;

	strlcpy(worker.bgw_name, "envelope index builder", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "envelope index builder", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "envelope", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "envelope_index_builder_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &job, sizeof(job));

	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background worker can be started to build an index"),
				 errhint("Raise max_worker_processes, or call again when there are fewer.")));
	PG_ENSURE_ERROR_CLEANUP(end_worker, PointerGetDatum(handle));
	{
		await_worker(relid, handle);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_worker, PointerGetDatum(handle));

	if (!protect_progress_outcome(relid, &sqlerrcode, &message))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the process that builds indexes for table \"%s\" has ended before it was done",
						get_rel_name(relid)),
				 errhint("The server log may say why. CALL envelope_protect_live again to try once more.")));
	if (sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED && may_retry)
		return false;
	if (sqlerrcode != ERRCODE_SUCCESSFUL_COMPLETION)
		ereport(ERROR,
				(errcode(sqlerrcode),
				 errmsg("%s", message),
				 errhint("CALL envelope_protect_live again to try once more, or envelope_unprotect to go back.")));
	return true;
}

/* Find out what is to be built; the list is in a context that lasts. */
static List *
find_builds(Oid relid, MemoryContext context, Oid *owner)
{
	List	   *builds = NIL;
	Relation	rel;
	ProtectPlan *plan;
	OwnerScope	scope;
	MemoryContext oldcontext;
	ListCell   *cell;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(relid, AccessShareLock);
	plan = protect_plan(rel, AccessShareLock);
	table_close(rel, NoLock);
	protect_plan_clear(plan);
	*owner = plan->owner;
	protect_begin(plan, &scope);
	foreach(cell, term_index_live_list(plan))
	{
		LiveIndex  *index = lfirst(cell);
		IndexStmt  *stmt;
		Build	   *build;

		if (index->exists)
			continue;
		stmt = term_index_live_statement(plan, index);
		oldcontext = MemoryContextSwitchTo(context);
		build = palloc(sizeof(Build));
		build->relid = index->relid;
		build->stmt = copyObject(stmt);
		build->shown = pstrdup(index->shown);
		builds = lappend(builds, build);
		MemoryContextSwitchTo(oldcontext);
	}
	protect_end(&scope);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return builds;
}

/*
 * Parse what an index is on, as the table's owner, who could get back to the
 * worker's user by RESET ROLE if it were not a security-restricted operation.
 * That cannot last while DefineIndex commits.
 */
static IndexStmt *
transform_restricted(Oid relid, IndexStmt *stmt, Oid owner)
{
	int			guc_level = NewGUCNestLevel();

	SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	stmt = transformIndexStmt(relid, stmt, "CREATE INDEX CONCURRENTLY");
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(owner, 0);
	return stmt;
}

/*
 * CREATE INDEX CONCURRENTLY, unless the table has gone.  Who holds such a lock may
 * wait for older snapshots: so it is taken before there is one.
 */
static void
build_index(const Build *build, Oid owner, MemoryContext context)
{
	IndexStmt  *stmt;
	MemoryContext oldcontext;

	building = build;
	StartTransactionCommand();
	LockRelationOid(build->relid, ShareUpdateExclusiveLock);
	if (get_rel_relkind(build->relid) != '\0')
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		oldcontext = MemoryContextSwitchTo(context);
		stmt = transform_restricted(build->relid, build->stmt, owner);
		MemoryContextSwitchTo(oldcontext);
		define_index_concurrently(build->relid, stmt);
	}
	CommitTransactionCommand();
	building = NULL;
}

/*
 * What may be said of an error.  PostgreSQL names the new index, which nobody
 * knows, and shows its columns.
 */
static const char *
harmless_message(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && building)
		return psprintf("could not move unique index \"%s\" to terms: there are rows with equal terms",
						building->shown);
	return building ?
		psprintf("could not build an index in place of \"%s\": %s", building->shown, error->message) :
		error->message;
}

/* Leave alone those settings of the database that are for its sessions. */
static void
settle_settings(void)
{
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_tablespace", "", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("lock_timeout", "0", PGC_USERSET, PGC_S_SESSION);
	if (GetConfigOption("transaction_timeout", true, false))
		SetConfigOption("transaction_timeout", "0", PGC_USERSET, PGC_S_SESSION);
}

/* The worker's main function. */
void
envelope_index_builder_main(Datum arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "envelope index builder",
												  ALLOCSET_DEFAULT_SIZES);
	BuildJob	job;
	Oid			owner;
	ListCell   *cell;

	memcpy(&job, MyBgworkerEntry->bgw_extra, sizeof(job));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(job.database, InvalidOid, 0);
	settle_settings();
	pgstat_report_activity(STATE_RUNNING, "envelope_protect_live: CREATE INDEX CONCURRENTLY");

	PG_TRY();
	{
		foreach(cell, find_builds(job.relid, context, &owner))
			build_index(lfirst(cell), owner, context);

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		protect_progress_built(job.relid);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		protect_progress_fail(job.relid, error->sqlerrcode, harmless_message(error));
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_END_TRY();
	proc_exit(0);
}
