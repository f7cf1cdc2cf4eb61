/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  Rows of envelope.rotations that tell of work under way.
 *
 * Each function writes in the caller's transaction, so that what a row says
 * becomes true with the work it speaks of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "keys/audit.h"
#include "keys/store.h"
#include "lifecycle/progress.h"

/* Record that work begins; the row's id. */
int64
progress_insert(const char *kind, const char *tenant, const char *kek,
				const char *new_kek, const char *phase)
{
	StoreParam	params[] = {
		store_text(kind),
		store_text(tenant),
		store_text(kek),
		store_text(new_kek),
		store_text(phase),
		store_text(audit_login())
	};
	OwnerScope	scope;
	bool		isnull;
	int64		id;

	store_begin(&scope);
	(void) store_execute("INSERT INTO envelope.rotations"
						 " (kind, tenant_id, kek, new_kek, phase, started_by, pid, phase_at, progress_at)"
						 " VALUES ($1, $2, $3, $4, $5, $6, pg_backend_pid(),"
						 " clock_timestamp(), clock_timestamp())"
						 " RETURNING rotation_id", lengthof(params), params);
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									 1, &isnull));
	store_end(&scope);
	return id;
}

/* Work enters a phase, which is to look at so many rows or keys. */
void
progress_phase(int64 id, const char *phase, int64 estimated)
{
	StoreParam	params[] = {
		{INT8OID, Int64GetDatum(id), false},
		store_text(phase),
		{INT8OID, Int64GetDatum(estimated), false}
	};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.rotations"
						 " SET phase = $2, rows_seen = 0, rows_estimated = $3, relation = NULL,"
						 " waits_for = NULL, pid = pg_backend_pid(),"
						 " phase_at = clock_timestamp(), progress_at = clock_timestamp()"
						 " WHERE rotation_id = $1", lengthof(params), params);
	store_end(&scope);
}

/* How far it is, where, and whom it waits for; NULL: nowhere, nobody. */
void
progress_tell(int64 id, int64 seen, int64 done, const char *relation,
			  const char *waits_for)
{
	StoreParam	params[] = {
		{INT8OID, Int64GetDatum(id), false},
		{INT8OID, Int64GetDatum(seen), false},
		{INT8OID, Int64GetDatum(done), false},
		store_text(relation),
		store_text(waits_for)
	};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.rotations"
						 " SET rows_seen = $2, rows_reencrypted = $3, relation = $4,"
						 " waits_for = $5, progress_at = clock_timestamp()"
						 " WHERE rotation_id = $1", lengthof(params), params);
	store_end(&scope);
}

/* Work has ended.  proof is a JSON object or NULL; so is error, as text. */
void
progress_finish(int64 id, const char *phase, const char *proof, const char *error)
{
	StoreParam	params[] = {
		{INT8OID, Int64GetDatum(id), false},
		store_text(phase),
		store_text(proof),
		store_text(error)
	};
	OwnerScope	scope;

	store_begin(&scope);
	(void) store_execute("UPDATE envelope.rotations"
						 " SET phase = $2, finished_at = clock_timestamp(), proof = $3::jsonb,"
						 " error = $4, relation = NULL, waits_for = NULL, pid = NULL"
						 " WHERE rotation_id = $1", lengthof(params), params);
	store_end(&scope);
}
