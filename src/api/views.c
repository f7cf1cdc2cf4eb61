/*-------------------------------------------------------------------------
 *
 * views.c
 *	  What the views show of memory, worker and KMS calls.
 *
 * None of it holds key bytes.  A session sees what is of its own database; a
 * member of pg_monitor sees the keys in memory of all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "keys/cache.h"
#include "keys/encoding.h"
#include "kms/queue.h"
#include "kms/stats.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(envelope_cache);
PG_FUNCTION_INFO_V1(envelope_cache_stats);
PG_FUNCTION_INFO_V1(envelope_kms_stats);
PG_FUNCTION_INFO_V1(envelope_kek_outcomes);
PG_FUNCTION_INFO_V1(envelope_server);

/* A tenant of any database, as far as this database can show it */
static Datum
tenant_datum(const char *tenant, Oid database, bool *isnull)
{
	size_t		len = strlen(tenant);

	*isnull = database != MyDatabaseId && GetDatabaseEncoding() != PG_UTF8;
	if (*isnull)
		return (Datum) 0;
	return CStringGetTextDatum(utf8_to_server(tenant, &len));
}

static const char *
dek_state_name(const DekCacheRow *row)
{
	switch (row->state)
	{
		case DEK_FRESH:
			return row->due ? "due" : "fresh";
		case DEK_GRACE:
			return "grace";
		case DEK_SUSPECT:
			return "suspect";
	}
	return "unknown";
}

static Datum
interval_ms(int64 ms)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = ms * 1000;
	return IntervalPGetDatum(interval);
}

/* The keys that are in memory now */
Datum
envelope_cache(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
	DekCacheRow *rows;
	int			nrows;

	shmem_require();
	InitMaterializedSRF(fcinfo, 0);
	rows = dek_cache_rows(all ? InvalidOid : MyDatabaseId, &nrows);
	for (int i = 0; i < nrows; i++)
	{
		DekCacheRow *row = &rows[i];
		Datum		values[8];
		bool		nulls[8] = {false};

		values[0] = ObjectIdGetDatum(row->id.database);
		values[1] = tenant_datum(row->tenant, row->id.database, &nulls[1]);
		values[2] = Int64GetDatum(row->id.key_id);
		values[3] = CStringGetTextDatum(purpose_name(row->purpose));
		values[4] = CStringGetTextDatum(dek_state_name(row));
		values[5] = interval_ms(row->age_ms);
		values[6] = interval_ms(row->expires_in_ms);
		values[7] = Int64GetDatum((int64) row->hits);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static Datum
one_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Counters of the cache, since the server started */
Datum
envelope_cache_stats(PG_FUNCTION_ARGS)
{
	DekCacheCounters counters;
	Datum		values[6];
	bool		nulls[6] = {false};

	shmem_require();
	dek_cache_counters(&counters);
	values[0] = Int32GetDatum(counters.size);
	values[1] = Int32GetDatum(counters.used);
	values[2] = Int64GetDatum((int64) counters.hits);
	values[3] = Int64GetDatum((int64) counters.misses);
	values[4] = Int64GetDatum((int64) counters.evictions);
	values[5] = Int64GetDatum((int64) counters.evictions_unexpired);
	return one_row(fcinfo, values, nulls);
}

static Datum
quantile(const KmsOperationStats *operation, double part, bool *isnull)
{
	double		ms = kms_stats_quantile(operation, part);

	*isnull = ms < 0;
	return Float8GetDatum(ms);
}

/* KMS calls of this database's KEKs, by operation */
Datum
envelope_kms_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KekStats   *keks;
	int			nkeks;

	shmem_require();
	InitMaterializedSRF(fcinfo, 0);
	keks = kms_stats_of_database(MyDatabaseId, &nkeks);
	for (int i = 0; i < nkeks * KMS_OPERATIONS; i++)
	{
		KekStats   *kek = &keks[i / KMS_OPERATIONS];
		int			op = i % KMS_OPERATIONS;
		KmsOperationStats *stats = &kek->operations[op];
		Datum		values[14];
		bool		nulls[14] = {false};

		if (stats->calls == 0 && stats->waits == 0 && stats->refused == 0)
			continue;
		values[0] = CStringGetTextDatum(kek->kek);
		values[1] = CStringGetTextDatum(kms_operation_name((KmsOperation) op));
		values[2] = Int64GetDatum((int64) stats->calls);
		values[3] = Int64GetDatum((int64) stats->outcomes[KMS_OK]);
		values[4] = Int64GetDatum((int64) stats->outcomes[KMS_DENIED]);
		values[5] = Int64GetDatum((int64) stats->outcomes[KMS_UNREACHABLE]);
		values[6] = Int64GetDatum((int64) stats->outcomes[KMS_CORRUPT]);
		values[7] = Int64GetDatum((int64) stats->outcomes[KMS_MISCONFIGURED]);
		values[8] = Int64GetDatum((int64) stats->retries);
		values[9] = Int64GetDatum((int64) stats->throttled);
		values[10] = Int64GetDatum((int64) stats->refused);
		values[11] = Int64GetDatum((int64) stats->waits);
		values[12] = quantile(stats, 0.5, &nulls[12]);
		values[13] = quantile(stats, 0.99, &nulls[13]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* How the last call of each of this database's KEKs ended */
Datum
envelope_kek_outcomes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KekStats   *keks;
	int			nkeks = 0;

	InitMaterializedSRF(fcinfo, 0);
	if (!shmem_is_ready())
		return (Datum) 0;
	keks = kms_stats_of_database(MyDatabaseId, &nkeks);
	for (int i = 0; i < nkeks; i++)
	{
		Datum		values[7];
		bool		nulls[7] = {false};

		if (!keks[i].has_outcome)
			continue;
		values[0] = CStringGetTextDatum(keks[i].kek);
		values[1] = CStringGetTextDatum(kms_outcome_name(keks[i].outcome));
		values[2] = TimestampTzGetDatum(keks[i].since);
		nulls[3] = keks[i].detail[0] == '\0';
		values[3] = CStringGetTextDatum(keks[i].detail);
		nulls[4] = keks[i].refused_until <= GetCurrentTimestamp();
		values[4] = TimestampTzGetDatum(keks[i].refused_until);
		nulls[5] = keks[i].credential_expires == 0;
		values[5] = TimestampTzGetDatum(keks[i].credential_expires);
		nulls[6] = keks[i].rights[0] == '\0';
		values[6] = CStringGetTextDatum(keks[i].rights);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* What envelope_doctor() cannot find out in SQL */
Datum
envelope_server(PG_FUNCTION_ARGS)
{
	Datum		values[4];
	bool		nulls[4] = {false};
	int			pid = shmem_is_ready() ? kms_worker_pid() : 0;

	values[0] = BoolGetDatum(shmem_is_ready());
	values[1] = BoolGetDatum(shmem_is_ready() && shmem_is_locked());
	values[2] = Int32GetDatum(pid);
	nulls[2] = pid == 0;
	values[3] = Int32GetDatum(shmem_is_ready() ? kms_request_count() : 0);
	return one_row(fcinfo, values, nulls);
}
