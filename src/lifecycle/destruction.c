/*-------------------------------------------------------------------------
 *
 * destruction.c
 *	  The end of tenants: requests, approvals, and what is done in the end.
 *
 * A request makes the tenant unusable at once, for a window of 7 to 30 days,
 * during which any admin can cancel it; then nothing is lost.  Others, at least
 * envelope.destroy_approvals of them, have to approve it.  People are told apart
 * by what they have logged in as, which SET ROLE and SET SESSION AUTHORIZATION
 * do not change.
 *
 * When the window is over and the approvals are there, maintenance destroys all
 * keys of the tenant, data and index: their wrapped forms leave the table with
 * the commit, and memory right after it.  What a backup or an old page still
 * holds of them opens only with the KEK.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "keys/tenant.h"
#include "lifecycle/destruction.h"
#include "settings.h"

pg_noreturn static void
report_no_request(const char *tenant)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tenant \"%s\" is not scheduled to be destroyed", tenant)));
}

/* Throw where a tenant cannot be requested to be destroyed. */
static void
check_requestable(const char *tenant)
{
	if (tenant_state_of_living(tenant) == TENANT_SCHEDULED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tenant \"%s\" is scheduled to be destroyed already", tenant)));
}

/*
 * Request that a tenant be destroyed, so long from now; loss, a JSON array, says
 * what goes with it.  The tenant cannot be used from the commit on.
 */
void
destruction_request(const char *tenant, int64 after_ms, const char *loss)
{
	OwnerScope	scope;
	char	   *state;

	if (after_ms < (int64) DESTROY_DAYS_MIN * SECS_PER_DAY * 1000 ||
		after_ms > (int64) DESTROY_DAYS_MAX * SECS_PER_DAY * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a tenant is destroyed after %d to %d days",
						DESTROY_DAYS_MIN, DESTROY_DAYS_MAX)));
	store_refuse_serializable("schedule a tenant to be destroyed");
	check_requestable(tenant);

	store_begin(&scope);
	{
		StoreParam	params[] = {store_text(tenant)};

		if (store_execute("SELECT state FROM envelope.tenants WHERE tenant_id = $1"
						  " AND state IN ('active', 'suspended') FOR UPDATE",
						  lengthof(params), params) == 0)
			check_requestable(tenant);
		state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		(void) store_execute("UPDATE envelope.tenants"
							 " SET state = 'scheduled', state_changed_at = now()"
							 " WHERE tenant_id = $1", lengthof(params), params);
	}
	{
		StoreParam	params[] = {
			store_text(tenant),
			store_text(audit_login()),
			{INT8OID, Int64GetDatum(after_ms), false},
			store_text(state),
			store_text(loss)
		};

		(void) store_execute("INSERT INTO envelope.destroy_requests"
							 " (tenant_id, requested_by, destroy_after, previous_state, loss)"
							 " VALUES ($1, $2, now() + $3 * interval '1 millisecond', $4, $5::jsonb)",
							 lengthof(params), params);
	}
	audit_record("destroy.request", tenant, NULL, NO_KEY, psprintf("{\"loss\": %s}", loss));
	store_end(&scope);
}

/*
 * Approve a request.  Refused (42501) to who has requested it, or approved it
 * before.  Returns how many approvals are still wanted.
 */
int
destruction_approve(const char *tenant)
{
	StoreParam	params[] = {store_text(tenant), store_text(audit_login())};
	OwnerScope	scope;
	HeapTuple	row;
	TupleDesc	desc;
	int			napprovals;

	store_refuse_serializable("approve a request");
	store_begin(&scope);
	if (store_execute("SELECT requested_by = $2, $2 = ANY (approved_by), cardinality(approved_by)"
					  " FROM envelope.destroy_requests"
					  " WHERE tenant_id = $1 AND ended_at IS NULL FOR UPDATE",
					  lengthof(params), params) == 0)
		report_no_request(tenant);
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	if (strcmp(SPI_getvalue(row, desc, 1), "t") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("who has requested that a tenant be destroyed cannot approve it"),
				 errdetail("This session has logged in as \"%s\".", audit_login())));
	if (strcmp(SPI_getvalue(row, desc, 2), "t") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("\"%s\" has approved this already", audit_login())));
	napprovals = pg_strtoint32(SPI_getvalue(row, desc, 3)) + 1;

	(void) store_execute("UPDATE envelope.destroy_requests SET approved_by = approved_by || $2"
						 " WHERE tenant_id = $1 AND ended_at IS NULL",
						 lengthof(params), params);
	audit_record("destroy.approve", tenant, NULL, NO_KEY, NULL);
	store_end(&scope);
	return Max(0, envelope_destroy_approvals - napprovals);
}

/* Cancel a request: the tenant is again what it was. */
void
destruction_cancel(const char *tenant)
{
	StoreParam	params[] = {store_text(tenant)};
	OwnerScope	scope;

	store_refuse_serializable("cancel a request");
	store_begin(&scope);
	if (store_execute("UPDATE envelope.destroy_requests"
					  " SET ended_at = now(), outcome = 'cancelled'"
					  " WHERE tenant_id = $1 AND ended_at IS NULL RETURNING previous_state",
					  lengthof(params), params) == 0)
		report_no_request(tenant);
	{
		StoreParam	back[] = {
			store_text(tenant),
			store_text(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1))
		};

		(void) store_execute("UPDATE envelope.tenants"
							 " SET state = $2, state_changed_at = now()"
							 " WHERE tenant_id = $1 AND state = 'scheduled'",
							 lengthof(back), back);
	}
	audit_record("destroy.cancel", tenant, NULL, NO_KEY, NULL);
	store_end(&scope);
}

/* Destroy a tenant whose request has been locked, and is due. */
static void
destroy(const char *tenant)
{
	StoreParam	params[] = {store_text(tenant)};

	(void) store_execute("UPDATE envelope.tenants"
						 " SET state = 'destroyed', state_changed_at = now()"
						 " WHERE tenant_id = $1 AND state = 'scheduled'",
						 lengthof(params), params);

	/*
	 * A rotation that began before the request, and was prepared, may have
	 * been waited for: the key that it has made is seen by another look.
	 */
	while (store_execute("UPDATE envelope.tenant_keys"
						 " SET state = 'destroyed', wrapped_dek = NULL, state_changed_at = now()"
						 " WHERE tenant_id = $1 AND state <> 'destroyed'",
						 lengthof(params), params) > 0)
		;
	(void) store_execute("UPDATE envelope.destroy_requests"
						 " SET ended_at = now(), outcome = 'destroyed'"
						 " WHERE tenant_id = $1 AND ended_at IS NULL",
						 lengthof(params), params);
	(void) store_execute("UPDATE envelope.rotations"
						 " SET phase = 'superseded', finished_at = now(), waits_for = NULL"
						 " WHERE tenant_id = $1 AND finished_at IS NULL",
						 lengthof(params), params);
	audit_record("destroy.done", tenant, NULL, NO_KEY, NULL);
}

/*
 * Destroy the tenants whose window is over and that were approved, in this
 * transaction; those that somebody is cancelling now are left out.  Returns how
 * many.
 */
int
destruction_of_due(void)
{
	StoreParam	params[] = {{INT4OID, Int32GetDatum(envelope_destroy_approvals), false}};
	OwnerScope	scope;
	SPITupleTable *due;
	uint64		ndue;

	store_begin(&scope);
	ndue = store_execute("SELECT r.tenant_id FROM envelope.destroy_requests r"
						 " JOIN envelope.tenants t ON t.tenant_id = r.tenant_id"
						 " AND t.state = 'scheduled'"
						 " WHERE r.ended_at IS NULL AND r.destroy_after <= now()"
						 " AND cardinality(r.approved_by) >= $1"
						 " ORDER BY r.tenant_id FOR UPDATE OF r SKIP LOCKED",
						 lengthof(params), params);
	due = SPI_tuptable;
	for (uint64 i = 0; i < ndue; i++)
		destroy(SPI_getvalue(due->vals[i], due->tupdesc, 1));
	store_end(&scope);
	return (int) ndue;
}
