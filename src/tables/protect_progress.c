/*-------------------------------------------------------------------------
 *
 * protect_progress.c
 *	  How far the tables are that are being protected live.
 *
 * A row of envelope.live_protections for each, which goes when it is done, or
 * undone.  What it says is for those who watch: what there is to do is in the
 * table's own catalogs.  But by it the process that builds an index tells why it
 * could not.
 *
 * Each function writes in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/elog.h"

#include "keys/audit.h"
#include "keys/store.h"
#include "tables/protect_progress.h"

static StoreParam
oid_param(Oid oid)
{
	StoreParam	param = {OIDOID, ObjectIdGetDatum(oid), false};

	return param;
}

static StoreParam
int8_param(int64 value)
{
	StoreParam	param = {INT8OID, Int64GetDatum(value), false};

	return param;
}

/* Work on a table enters a phase, in which so many rows are to be looked at. */
void
protect_progress_phase(Oid relid, const char *phase, int64 estimated)
{
	StoreParam	params[] = {
		oid_param(relid),
		store_text(phase),
		int8_param(estimated),
		store_text(audit_login())
	};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("INSERT INTO envelope.live_protections"
						 " (relid, phase, rows_estimated, started_by, pid)"
						 " VALUES ($1, $2, $3, $4, pg_backend_pid())"
						 " ON CONFLICT (relid) DO UPDATE SET phase = $2, rows_estimated = $3,"
						 " rows_done = 0, waits_for = NULL, pid = pg_backend_pid(),"
						 " phase_at = clock_timestamp(), progress_at = clock_timestamp(),"
						 " sqlstate = NULL, error = NULL",
						 lengthof(params), params);
	store_end(&scope);
}

/* How many rows have been looked at, and whom it waits for; NULL: nobody. */
void
protect_progress_tell(Oid relid, int64 done, const char *waits_for)
{
	StoreParam	params[] = {oid_param(relid), int8_param(done), store_text(waits_for)};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.live_protections SET rows_done = $2,"
						 " waits_for = $3, progress_at = clock_timestamp()"
						 " WHERE relid = $1", lengthof(params), params);
	store_end(&scope);
}

/* It waits for a lock on the table, which somebody has. */
void
protect_progress_tell_lock(Oid relid)
{
	StoreParam	params[] = {oid_param(relid)};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.live_protections SET progress_at = clock_timestamp(),"
						 " waits_for = coalesce((SELECT 'process ' || l.pid FROM pg_locks l"
						 " WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted"
						 " AND l.pid <> pg_backend_pid() LIMIT 1), 'a lock on the table')"
						 " WHERE relid = $1", lengthof(params), params);
	store_end(&scope);
}

/* The same of an index, as PostgreSQL tells it of the process that builds it. */
void
protect_progress_tell_index(Oid relid, int builder)
{
	StoreParam	params[] = {oid_param(relid), int8_param(builder)};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.live_protections p SET"
						 " rows_done = i.tuples_done,"
						 " rows_estimated = greatest(i.tuples_total, p.rows_estimated),"
						 " waits_for = 'process ' || nullif(i.current_locker_pid, 0),"
						 " progress_at = clock_timestamp()"
						 " FROM pg_stat_progress_create_index i"
						 " WHERE p.relid = $1 AND i.pid = $2",
						 lengthof(params), params);
	store_end(&scope);
}

/* It has come to an end. */
void
protect_progress_end(Oid relid)
{
	StoreParam	params[] = {oid_param(relid)};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("DELETE FROM envelope.live_protections WHERE relid = $1",
						 lengthof(params), params);
	store_end(&scope);
}

/* The process that builds indexes has ended with an error, or with none. */
static void
tell_outcome(Oid relid, int sqlerrcode, const char *message)
{
	StoreParam	params[] = {
		oid_param(relid),
		store_text(unpack_sql_state(sqlerrcode)),
		store_text(message)
	};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.live_protections SET sqlstate = $2, error = $3"
						 " WHERE relid = $1", lengthof(params), params);
	store_end(&scope);
}

void
protect_progress_fail(Oid relid, int sqlerrcode, const char *message)
{
	tell_outcome(relid, sqlerrcode, message);
}

void
protect_progress_built(Oid relid)
{
	tell_outcome(relid, ERRCODE_SUCCESSFUL_COMPLETION, NULL);
}

/*
 * How it has ended: ERRCODE_SUCCESSFUL_COMPLETION, or another code with a message,
 * palloc'd.  False where it has left no word.
 */
bool
protect_progress_outcome(Oid relid, int *sqlerrcode, char **message)
{
	StoreParam	params[] = {oid_param(relid)};
	MemoryContext context = CurrentMemoryContext;
	OwnerScope	scope;
	bool		found;

	store_begin(&scope);
	found = store_execute("SELECT sqlstate, coalesce(error, '') FROM envelope.live_protections"
						  " WHERE relid = $1 AND sqlstate IS NOT NULL",
						  lengthof(params), params) > 0;
	if (found)
	{
		const char *state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		*sqlerrcode = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
		*message = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0],
															 SPI_tuptable->tupdesc, 2));
	}
	store_end(&scope);
	return found;
}
