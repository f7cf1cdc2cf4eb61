/*-------------------------------------------------------------------------
 *
 * steps.c
 *	  Work in many short transactions, and waiting for those of others.
 *
 * What takes long is done by procedures that commit on the way.  They are C
 * functions that neither are SECURITY DEFINER nor SET anything, as those could
 * not commit, and each transaction runs at READ COMMITTED, whatever the
 * session's default.
 *
 * To wait for the transactions that run now is to list them, those without a
 * snapshot and prepared ones included, and to look at each again and again
 * until it is gone: from transactions that are begun anew for every look and
 * hold no snapshot and no lock.  So two who wait cannot wait for each other,
 * nor CREATE INDEX CONCURRENTLY for us.  A list is no state: after a crash it
 * is made anew.
 *
 * Locking
 *
 * That nobody else works on the same tenant, KEK, table or maintenance is seen to by
 * locks of the session's, on LOCKTAG_OBJECT of one of our tables.  They are
 * only ever tried, never waited for, survive commits, and go with an error or
 * with the session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "lifecycle/steps.h"
#include "settings.h"
#include "tables/protection.h"

/* How long to sleep between two looks at a transaction */
#define LOOK_MIN_MS		10
#define LOOK_MAX_MS		500

/* How long to wait for a lock that holds up others, and between two tries */
#define LOCK_MS			100
#define LOCK_PAUSE_MIN_MS	100
#define LOCK_PAUSE_MAX_MS	5000

/* How long to let standbys catch up before looking again */
#define LAG_LOOK_MS		200

/*
 * Begin a procedure that commits on the way.  Throws 2D000 where it cannot,
 * 25006 on a standby, and 0A000 where transactions are SERIALIZABLE.  What is
 * palloc'd from here on lives until steps_end.
 */
void
steps_begin(FunctionCallInfo fcinfo, const char *what)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot run inside a transaction block or function", what),
				 errhint("CALL it by itself.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("%s cannot run on a standby", what)));
	store_refuse_serializable(psprintf("run %s", what));

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	steps_commit();
}

void
steps_end(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not finish with SPI");
}

/* Commit, and begin the next transaction. */
void
steps_commit(void)
{
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Leave what an error has left open, by us or by a function of the application:
 * connections to SPI, which are all atomic but for that of steps_begin, and
 * active snapshots, which SPI_rollback expects to be those of portals.
 */
static void
unwind(void)
{
	while (!SPI_inside_nonatomic_context() && SPI_finish() == SPI_OK_FINISH)
		;
	while (ActiveSnapshotSet() &&
		   (!PortalIsValid(ActivePortal) ||
			GetActiveSnapshot() != ActivePortal->portalSnapshot))
		PopActiveSnapshot();
}

/*
 * After an error has been caught: roll back, begin the next transaction, and
 * return the error, in a context that outlives transactions.  Throws it again
 * where somebody wants this session to stop.
 */
ErrorData *
steps_recover(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN ||
		IsSubTransaction())
		PG_RE_THROW();
	FlushErrorState();
	unwind();
	SPI_rollback();
	XactIsoLevel = XACT_READ_COMMITTED;
	return error;
}

/* Sleep, in a transaction that holds nothing. */
void
steps_sleep(long ms)
{
	static uint32 wait_event = 0;

	if (ms <= 0)
		return;
	if (wait_event == 0)
		wait_event = wait_event_named("EnvelopeSteps");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Who holds a lock that column = value of pg_locks names, for those who look
 * after it; palloc'd, NULL where nobody does.
 */
static char *
describe_holder(const char *column, char *value)
{
	OwnerScope	scope;
	StoreParam	params[1];
	MemoryContext context = CurrentMemoryContext;
	char	   *whom = NULL;

	store_begin(&scope);
	params[0] = store_text(value);
	if (store_execute(psprintf("SELECT coalesce('process ' || l.pid, 'prepared transaction ' || quote_literal(p.gid))"
							   " FROM pg_locks l"
							   " LEFT JOIN pg_prepared_xacts p ON l.locktype = 'transactionid'"
							   " AND p.transaction = l.transactionid"
							   " WHERE l.%s::text = $1 AND l.granted"
							   " AND (l.pid IS NOT NULL OR p.gid IS NOT NULL) LIMIT 1", column),
					  lengthof(params), params) > 0)
		whom = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0],
														 SPI_tuptable->tupdesc, 1));
	store_end(&scope);
	return whom;
}

/* Who has a transaction id; palloc'd, NULL where it is over. */
char *
steps_describe_xid(TransactionId xid)
{
	return describe_holder("transactionid", psprintf("%u", xid));
}

/* The same of a transaction that was listed, and may be prepared by now */
static char *
describe_transaction(const VirtualTransactionId *vxid)
{
	char	   *whom = describe_holder("virtualtransaction",
									   psprintf("%d/%u", vxid_backend(vxid),
												vxid->localTransactionId));
	TransactionId xid;
	bool		have_more;

	if (whom)
		return whom;
	xid = TwoPhaseGetXidByVirtualXID(*vxid, &have_more);
	return TransactionIdIsValid(xid) ? steps_describe_xid(xid) : NULL;
}

/*
 * Tell whom is waited for, if that is not *told already, which is palloc'd.
 */
static void
tell_whom(const VirtualTransactionId *vxid, char **told, waiting_fn waiting, void *arg)
{
	char	   *whom = describe_transaction(vxid);

	if (whom == NULL || (*told && strcmp(whom, *told) == 0))
		return;
	waiting(whom, arg);
	if (*told)
		pfree(*told);
	*told = whom;
}

/*
 * Wait until every transaction of this database that runs now is over, by
 * commits and looks; none of the caller's may hold anything.
 */
void
steps_await_transactions(waiting_fn waiting, void *arg)
{
	VirtualTransactionId *running;
	int			nrunning;
	char	   *told = NULL;

	running = GetCurrentVirtualXIDs(InvalidTransactionId, false, false,
									PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, &nrunning);
	for (int i = 0; i < nrunning; i++)
	{
		long		ms = LOOK_MIN_MS;

		while (!VirtualXactLock(running[i], false))
		{
			/* Most are gone by the second look, and not worth a word. */
			if (ms >= LOOK_MIN_MS * 8)
				tell_whom(&running[i], &told, waiting, arg);
			steps_commit();
			steps_sleep(ms);
			ms = Min(ms * 2, LOOK_MAX_MS);
			steps_commit();
		}
	}
	pfree(running);
	if (told)
		waiting(NULL, arg);
	steps_commit();
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
 * Lock a table of the current user's and its partitions against everybody, by
 * commits and tries.  Whoever waits for such a lock holds up all who come after:
 * so it is waited for LOCK_MS at most, and asked for again after a while.
 */
void
steps_lock_table(Oid relid, refused_fn refused)
{
	long		ms = LOCK_PAUSE_MIN_MS;

	while (!try_lock_table(relid))
	{
		refused(relid);
		steps_commit();
		steps_sleep(ms);
		ms = Min(ms * 2, LOCK_PAUSE_MAX_MS);
		steps_commit();
	}
}

/*
 * The standby that is furthest behind, if by more than
 * envelope.maintenance_max_lag, for those who look after it; palloc'd, or NULL.
 */
static char *
lagging_standby(void)
{
	StoreParam	params[] = {
		{INT8OID, Int64GetDatum((int64) envelope_maintenance_max_lag * 1024), false}
	};
	MemoryContext context = CurrentMemoryContext;
	OwnerScope	scope;
	char	   *standby = NULL;

	store_begin(&scope);
	if (store_execute("SELECT 'standby ' || quote_literal(application_name)"
					  " FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')"
					  " AND pg_current_wal_lsn() - replay_lsn > $1"
					  " ORDER BY replay_lsn LIMIT 1", lengthof(params), params) > 0)
		standby = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0],
															SPI_tuptable->tupdesc, 1));
	store_end(&scope);
	return standby;
}

/*
 * Wait while a standby is further behind than envelope.maintenance_max_lag, by
 * commits and looks.  waiting is told of it once, and with NULL when it is over.
 */
void
steps_throttle(waiting_fn waiting, void *arg)
{
	char	   *standby;
	bool		told = false;

	if (envelope_maintenance_max_lag < 0)
		return;
	while ((standby = lagging_standby()) != NULL)
	{
		if (!told)
			waiting(standby, arg);
		told = true;
		steps_commit();
		steps_sleep(LAG_LOOK_MS);
	}
	if (told)
		waiting(NULL, arg);
	steps_commit();
}

/* The lock that whoever works on something of a table of ours holds */
static void
set_tag(LOCKTAG *tag, const char *table, const char *name)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) name, strlen(name), 0);

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, catalog_relation(table),
					   (uint32) hash, (uint16) (hash >> 32));
}

static bool
try_lock(const char *table, const char *name, bool session)
{
	LOCKTAG		tag;

	set_tag(&tag, table, name);
	return LockAcquire(&tag, ExclusiveLock, session, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock(const char *table, const char *name)
{
	LOCKTAG		tag;

	set_tag(&tag, table, name);
	LockRelease(&tag, ExclusiveLock, true);
}

/*
 * Try to be the only one to rotate or destroy keys of a tenant (in the
 * server's encoding), until steps_unlock_tenant, or for this transaction.
 */
bool
steps_lock_tenant(const char *tenant, bool session)
{
	return try_lock("tenant_keys", tenant, session);
}

void
steps_unlock_tenant(const char *tenant)
{
	unlock("tenant_keys", tenant);
}

/* The same for a KEK that is rotated */
bool
steps_lock_kek(const char *kek)
{
	return try_lock("keks", kek, true);
}

void
steps_unlock_kek(const char *kek)
{
	unlock("keks", kek);
}

/* The same for a table that is protected live */
bool
steps_lock_protection(Oid relid)
{
	return try_lock("live_protections", psprintf("%u", relid), true);
}

void
steps_unlock_protection(Oid relid)
{
	unlock("live_protections", psprintf("%u", relid));
}

/* The same for maintenance */
bool
steps_lock_maintenance(void)
{
	return try_lock("rotations", "", true);
}

void
steps_unlock_maintenance(void)
{
	unlock("rotations", "");
}
