/*-------------------------------------------------------------------------
 *
 * maintenance.c
 *	  Doing what is due: for a timer to call.
 *
 * In this order: tenants whose window is over are destroyed; KEKs and tenants
 * whose interval has passed are rotated, and rotations that were interrupted are
 * finished; retired keys whose retention is over are destroyed.  All tenants
 * that are due are rotated in one pass, or in passes of PASS_TENANTS.
 *
 * A job that fails does not keep the others from being done: it becomes a
 * WARNING and a word in envelope.rotations.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "keys/tenant.h"
#include "lifecycle/death.h"
#include "lifecycle/destruction.h"
#include "lifecycle/maintenance.h"
#include "lifecycle/rewrap.h"
#include "lifecycle/rotation.h"
#include "lifecycle/steps.h"
#include "settings.h"

/* Each takes a lock of the session's. */
#define PASS_TENANTS 500

/* What is done, and for whom */
typedef struct Job
{
	const char *what;			/* for messages */
	char	  **names;			/* tenants, or a KEK */
	int			nnames;
	const RotationPace *pace;
} Job;

typedef void (*job_fn) (Job *job);

/*
 * Set how often a tenant's keys, those of tenants without an interval of their
 * own, or those under a KEK are rotated; NULL: never, or as the default says.
 */
void
maintenance_set_interval(const char *kind, const char *subject, const Interval *every)
{
	StoreParam	params[] = {
		store_text(kind),
		store_text(subject),
		{INTERVALOID, IntervalPGetDatum(every), every == NULL}
	};
	OwnerScope	scope;

	if (strcmp(kind, "tenant") == 0)
		(void) tenant_state_of(subject);
	store_begin(&scope);
	if (strcmp(kind, "kek") == 0 && !store_lock_kek(subject))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist", subject)));
	if (every == NULL)
		(void) store_execute("DELETE FROM envelope.rotation_intervals"
							 " WHERE kind = $1 AND subject = $2", 2, params);
	else
		(void) store_execute("INSERT INTO envelope.rotation_intervals (kind, subject, every)"
							 " VALUES ($1, $2, $3)"
							 " ON CONFLICT (kind, subject) DO UPDATE SET every = excluded.every",
							 lengthof(params), params);
	audit_record("interval.set", strcmp(kind, "tenant") == 0 ? subject : NULL,
				 strcmp(kind, "kek") == 0 ? subject : NULL, NO_KEY, NULL);
	store_end(&scope);
}

/* The names that a query finds, in its first column; in context. */
static char **
list_names(MemoryContext context, const char *query, int nparams,
		   const StoreParam *params, int *nnames)
{
	OwnerScope	scope;
	char	  **names;

	store_begin(&scope);
	*nnames = (int) store_execute(query, nparams, params);
	names = MemoryContextAlloc(context, sizeof(char *) * Max(*nnames, 1));
	for (int i = 0; i < *nnames; i++)
		names[i] = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i],
															 SPI_tuptable->tupdesc, 1));
	store_end(&scope);
	steps_commit();
	return names;
}

/* Say what went wrong with a job, and note it where its rotations are. */
static void
note_failure(const Job *job, const ErrorData *error)
{
	StoreParam	params[] = {store_texts(job->names, job->nnames), store_text(error->message)};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.rotations SET error = $2, pid = NULL, waits_for = NULL"
						 " WHERE finished_at IS NULL AND (tenant_id = ANY ($1) OR kek = ANY ($1))",
						 lengthof(params), params);
	store_end(&scope);
	steps_commit();
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("%s failed: %s", job->what, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/* Try to do a job; what went wrong, or NULL. */
static ErrorData *
try_job(job_fn run, Job *job)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		run(job);
	}
	PG_CATCH();
	{
		error = steps_recover(context);
	}
	PG_END_TRY();
	return error;
}

/*
 * Can an error be due to a tenant or a row of theirs?  The server's want of
 * something, and faults of its own, are not.
 */
static bool
may_be_one_tenants(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return true;
	}
}

/*
 * Do a job.  One for many tenants that fails is done again for each half of
 * them, so that what is wrong with one tenant's rows does not hold up others.
 * False where maintenance must end, since another session took its lock while
 * this one recovered.
 */
static bool
do_job(job_fn run, Job *job, bool divisible)
{
	ErrorData  *error = try_job(run, job);
	bool		go_on;

	if (error == NULL)
		return true;
	go_on = steps_lock_maintenance();
	if (go_on && divisible && job->nnames > 1 && may_be_one_tenants(error))
	{
		Job			half = *job;

		half.nnames = job->nnames / 2;
		go_on = do_job(run, &half, true);
		half.names += half.nnames;
		half.nnames = job->nnames - half.nnames;
		go_on = go_on && do_job(run, &half, true);
	}
	else
		note_failure(job, error);
	FreeErrorData(error);
	return go_on;
}

static void
run_destructions(Job *job)
{
	int			ndestroyed = destruction_of_due();

	steps_commit();
	if (ndestroyed > 0)
		ereport(NOTICE, (errmsg("%d tenants were destroyed", ndestroyed)));
}

static void
run_kek_rotation(Job *job)
{
	(void) rewrap_kek(job->names[0], job->names[1]);
}

static void
run_rotation(Job *job)
{
	int			nrotated = rotation_of_tenants(job->names, job->nnames, job->pace,
											   TROUBLE_WARN);

	ereport(NOTICE, (errmsg("the keys of %d tenants were rotated", nrotated)));
}

static void
run_deaths(Job *job)
{
	int			ndestroyed = death_of_retired_keys(job->names, job->nnames,
												   envelope_retired_key_retention, false);

	ereport(NOTICE, (errmsg("%d retired keys were destroyed", ndestroyed)));
}

/* Do a job for many tenants, in passes. */
static bool
do_passes(job_fn run, const char *what, char **tenants, int ntenants,
		  const RotationPace *pace)
{
	for (int done = 0; done < ntenants; done += PASS_TENANTS)
	{
		Job			job = {what, &tenants[done], Min(ntenants - done, PASS_TENANTS), pace};

		if (!do_job(run, &job, true))
			return false;
	}
	return true;
}

/* The KEKs that are due, and those whose rotation is not finished */
static bool
rotate_keks(MemoryContext context)
{
	int			nkeks;
	char	  **keks = list_names(context,
								  "SELECT k.name FROM envelope.keks k"
								  " JOIN envelope.rotation_intervals i ON i.kind = 'kek' AND i.subject = k.name"
								  " WHERE greatest(k.created_at, (SELECT max(r.started_at)"
								  " FROM envelope.rotations r WHERE r.kind = 'kek' AND r.kek = k.name"
								  " AND r.phase = 'done')) + i.every <= now()"
								  " AND NOT EXISTS (SELECT FROM envelope.rotations u WHERE u.kind = 'kek'"
								  " AND u.kek = k.name AND u.finished_at IS NULL)"
								  " ORDER BY 1", 0, NULL, &nkeks);
	int			nunfinished;
	char	  **unfinished = list_names(context,
										"SELECT n FROM envelope.rotations r"
										" CROSS JOIN LATERAL unnest(array[r.kek, r.new_kek]) WITH ORDINALITY u (n, i)"
										" WHERE r.kind = 'kek' AND r.finished_at IS NULL"
										" ORDER BY r.rotation_id, u.i", 0, NULL, &nunfinished);

	for (int i = 0; i + 1 < nunfinished; i += 2)
	{
		Job			job = {"rotation of a KEK", &unfinished[i], 2};

		if (!do_job(run_kek_rotation, &job, false))
			return false;
	}
	for (int i = 0; i < nkeks; i++)
	{
		char	   *pair[] = {keks[i], keks[i]};
		Job			job = {"rotation of a KEK", pair, 2};

		if (!do_job(run_kek_rotation, &job, false))
			return false;
	}
	return true;
}

/* The tenants that are due, and those whose rotation is not finished */
static bool
rotate_tenants(MemoryContext context, const RotationPace *pace)
{
	int			ntenants;
	char	  **tenants = list_names(context,
									 "SELECT t.tenant_id FROM envelope.tenants t"
									 " JOIN envelope.tenant_keys k ON k.tenant_id = t.tenant_id"
									 " AND k.purpose = 'data' AND k.state = 'active'"
									 " LEFT JOIN envelope.rotation_intervals i ON i.kind = 'tenant' AND i.subject = t.tenant_id"
									 " LEFT JOIN envelope.rotation_intervals d ON d.kind = 'default'"
									 " WHERE t.state = 'active'"
									 " AND (k.created_at + coalesce(i.every, d.every) <= now()"
									 " OR EXISTS (SELECT FROM envelope.rotations r WHERE r.kind = 'dek'"
									 " AND r.tenant_id = t.tenant_id AND r.finished_at IS NULL))"
									 " ORDER BY k.created_at", 0, NULL, &ntenants);

	return do_passes(run_rotation, "rotation of tenants", tenants, ntenants, pace);
}

/* The tenants that have retired keys whose retention is over */
static bool
destroy_retired(MemoryContext context)
{
	StoreParam	params[] = {{INT4OID, Int32GetDatum(envelope_retired_key_retention), false}};
	int			ntenants;
	char	  **tenants;

	if (envelope_retired_key_retention < 0)
		return true;
	tenants = list_names(context,
						 "SELECT DISTINCT k.tenant_id FROM envelope.tenant_keys k"
						 " JOIN envelope.rotations r ON r.tenant_id = k.tenant_id"
						 " AND r.phase = 'proven' AND r.proof->'keys' ? k.key_id::text"
						 " WHERE k.purpose = 'data' AND k.state IN ('retired', 'scheduled')"
						 " AND r.finished_at + make_interval(mins => $1) <= now()"
						 " ORDER BY 1", lengthof(params), params, &ntenants);
	return do_passes(run_deaths, "destruction of retired keys", tenants, ntenants, NULL);
}

/* Do what is due, from steps_begin on. */
void
maintenance_run(const RotationPace *pace)
{
	MemoryContext context = CurrentMemoryContext;
	Job			destructions = {"destruction of tenants"};

	if (!steps_lock_maintenance())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("envelope_run_maintenance is running in another session")));
	if (do_job(run_destructions, &destructions, false) &&
		rotate_keks(context) &&
		rotate_tenants(context, pace) &&
		destroy_retired(context))
		steps_unlock_maintenance();
}
