/*-------------------------------------------------------------------------
 *
 * rotation.c
 *	  The SQL functions and procedures of columns that are registered, of
 *	  rotation, and of destruction.
 *
 * Functions take tenant ids of type text, those for bigint and uuid are SQL
 * functions that call these; procedures that commit cannot be called so, and
 * exist in C for each type.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "errors.h"
#include "keys/encoding.h"
#include "lifecycle/death.h"
#include "lifecycle/destruction.h"
#include "lifecycle/maintenance.h"
#include "lifecycle/rewrap.h"
#include "lifecycle/rotation.h"
#include "lifecycle/steps.h"
#include "lifecycle/verify.h"
#include "tables/registry.h"

PG_FUNCTION_INFO_V1(envelope_register_column);
PG_FUNCTION_INFO_V1(envelope_unregister_column);
PG_FUNCTION_INFO_V1(envelope_verify_tenant);
PG_FUNCTION_INFO_V1(envelope_set_tenant_kek);
PG_FUNCTION_INFO_V1(envelope_rotate_kek);
PG_FUNCTION_INFO_V1(envelope_schedule_destroy);
PG_FUNCTION_INFO_V1(envelope_approve_destroy);
PG_FUNCTION_INFO_V1(envelope_cancel_destroy);
PG_FUNCTION_INFO_V1(envelope_set_rotation_interval);
PG_FUNCTION_INFO_V1(envelope_set_kek_rotation_interval);
PG_FUNCTION_INFO_V1(envelope_run_maintenance);

/*
 * envelope_register_column(rel regclass, column name, tenant_column name,
 *							context text, context_expression text)
 */
Datum
envelope_register_column(PG_FUNCTION_ARGS)
{
	char	   *context = args_text_or_null(fcinfo, 3);
	char	   *expression = args_text_or_null(fcinfo, 4);

	for (int i = 0; i < 3; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("table and columns must not be null")));
	}
	if (context && expression)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a column has a constant context or an expression, not both")));
	if (context == NULL && expression == NULL)
		context = "";
	registry_add(PG_GETARG_OID(0), NameStr(*PG_GETARG_NAME(1)),
				 NameStr(*PG_GETARG_NAME(2)), context, expression);
	PG_RETURN_VOID();
}

/* envelope_unregister_column(rel regclass, column name); strict */
Datum
envelope_unregister_column(PG_FUNCTION_ARGS)
{
	registry_remove(PG_GETARG_OID(0), NameStr(*PG_GETARG_NAME(1)));
	PG_RETURN_VOID();
}

/* A tenant argument in the server's encoding, palloc'd; 22004 where it is null. */
static char *
take_tenant(FunctionCallInfo fcinfo, tenant_arg_fn take)
{
	LabelArgs	args;
	size_t		len;
	const char *tenant;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the tenant must not be null")));
	take(&args, PG_GETARG_DATUM(0));
	len = strlen(args.label.tenant);
	tenant = utf8_to_server(args.label.tenant, &len);
	return pnstrdup(tenant, len);
}

/* rotate_tenant_dek(tenant, reencrypt bool) returns the new key's id; strict */
static Datum
rotate_in_transaction(FunctionCallInfo fcinfo, tenant_arg_fn take)
{
	PG_RETURN_INT64(rotation_in_transaction(take_tenant(fcinfo, take),
											PG_GETARG_BOOL(1)));
}

/* An interval in milliseconds; months count 30 days. */
static int64
interval_ms(const Interval *interval)
{
	return interval->time / 1000 +
		((int64) interval->month * DAYS_PER_MONTH + interval->day) * SECS_PER_DAY * 1000;
}

/*
 * How fast to go: two arguments, the first of them at; 22023 for what makes no
 * sense.
 */
static void
take_pace(FunctionCallInfo fcinfo, int at, RotationPace *pace)
{
	if (PG_ARGISNULL(at) || PG_ARGISNULL(at + 1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch size and pause must not be null")));
	pace->batch_size = PG_GETARG_INT32(at);
	pace->pause_ms = interval_ms(PG_GETARG_INTERVAL_P(at + 1));
	if (pace->batch_size < 1 || pace->batch_size > 1000000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a batch cannot have %d rows", pace->batch_size),
				 errdetail("It has 1 to 1000000.")));
	if (pace->pause_ms < 0 || pace->pause_ms > 3600 * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pause is at least 0 and at most an hour")));
}

/* envelope_rotate_tenant(tenant, batch_size int, pause interval) */
static Datum
rotate_live(FunctionCallInfo fcinfo, tenant_arg_fn take)
{
	RotationPace pace;
	char	   *tenant;

	take_pace(fcinfo, 1, &pace);
	(void) take_tenant(fcinfo, take);
	steps_begin(fcinfo, "envelope_rotate_tenant");
	tenant = take_tenant(fcinfo, take);
	rotation_check_tenant(tenant);
	(void) rotation_of_tenants(&tenant, 1, &pace, TROUBLE_THROW);
	steps_end();
	PG_RETURN_VOID();
}

/* envelope_destroy_retired_keys(tenant) */
static Datum
destroy_retired(FunctionCallInfo fcinfo, tenant_arg_fn take)
{
	char	   *tenant;

	(void) take_tenant(fcinfo, take);
	steps_begin(fcinfo, "envelope_destroy_retired_keys");
	tenant = take_tenant(fcinfo, take);
	rotation_check_tenant(tenant);
	(void) death_of_retired_keys(&tenant, 1, -1, true);
	steps_end();
	PG_RETURN_VOID();
}

/* Define the SQL functions NAME_for_text, _bigint and _uuid. */
#define TENANT_FUNCTION(name, body) \
	PG_FUNCTION_INFO_V1(name##_for_text); \
	Datum \
	name##_for_text(PG_FUNCTION_ARGS) \
	{ \
		return body(fcinfo, args_tenant_text); \
	} \
	PG_FUNCTION_INFO_V1(name##_for_bigint); \
	Datum \
	name##_for_bigint(PG_FUNCTION_ARGS) \
	{ \
		return body(fcinfo, args_tenant_bigint); \
	} \
	PG_FUNCTION_INFO_V1(name##_for_uuid); \
	Datum \
	name##_for_uuid(PG_FUNCTION_ARGS) \
	{ \
		return body(fcinfo, args_tenant_uuid); \
	} \
	extern int no_such_function_##name

TENANT_FUNCTION(rotate_tenant_dek, rotate_in_transaction);
TENANT_FUNCTION(envelope_rotate_tenant, rotate_live);
TENANT_FUNCTION(envelope_destroy_retired_keys, destroy_retired);

/* A row of envelope_verify_tenant */
static void
put_count(const char *table, const char *column, const VerifyCount *count, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	KeyRow		row;
	Datum		values[7];
	bool		nulls[7] = {false};
	static const char *const states[] = {"active", "retired", "scheduled", "destroyed"};

	values[0] = CStringGetTextDatum(table);
	values[1] = CStringGetTextDatum(column);
	values[2] = Int64GetDatum(count->key_id);
	nulls[2] = count->key_id == NO_KEY;
	nulls[3] = nulls[2] || !catalog_read_key(count->key_id, &row);
	if (!nulls[3])
		values[3] = CStringGetTextDatum(states[row.state]);
	values[4] = Int64GetDatum(count->values);
	values[5] = Int64GetDatum(count->failures);
	nulls[6] = count->failures == 0;
	if (!nulls[6])
		values[6] = CStringGetTextDatum(unpack_sql_state(count->sqlstate));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* envelope_verify_tenant(tenant text) returns what there is under which key. */
Datum
envelope_verify_tenant(PG_FUNCTION_ARGS)
{
	char	   *tenant = args_text(fcinfo, 0, "tenant");

	InitMaterializedSRF(fcinfo, 0);
	rotation_check_tenant(tenant);
	verify_tenant(tenant, true, put_count, fcinfo->resultinfo);
	return (Datum) 0;
}

/* envelope_set_tenant_kek(tenant text, kek text) returns how many keys moved. */
Datum
envelope_set_tenant_kek(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(rewrap_tenant(args_text(fcinfo, 0, "tenant"),
								  args_text(fcinfo, 1, "KEK")));
}

/* envelope_rotate_kek(kek text, new_kek text) */
Datum
envelope_rotate_kek(PG_FUNCTION_ARGS)
{
	char	   *kek;
	char	   *target;

	(void) args_text(fcinfo, 0, "KEK");
	steps_begin(fcinfo, "envelope_rotate_kek");
	kek = args_text(fcinfo, 0, "KEK");
	target = args_text_or_null(fcinfo, 1);
	(void) rewrap_kek(kek, target ? target : kek);
	steps_end();
	PG_RETURN_VOID();
}

/* What a tenant's end would lose, as it is counted */
typedef struct Loss
{
	ReturnSetInfo *rsinfo;
	StringInfoData json;
}			Loss;

static void
put_loss(const char *table, const char *column, const VerifyCount *count, void *arg)
{
	Loss	   *loss = arg;
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = CStringGetTextDatum(table);
	values[1] = CStringGetTextDatum(column);
	values[2] = Int64GetDatum(count->values);
	tuplestore_putvalues(loss->rsinfo->setResult, loss->rsinfo->setDesc, values, nulls);

	appendStringInfoString(&loss->json, loss->json.len > 1 ? ", {\"table\": " : "{\"table\": ");
	escape_json(&loss->json, table);
	appendStringInfoString(&loss->json, ", \"column\": ");
	escape_json(&loss->json, column);
	appendStringInfo(&loss->json, ", \"values\": " INT64_FORMAT "}", count->values);
}

/*
 * envelope_schedule_destroy(tenant text, after interval) returns what will be
 * lost.
 */
Datum
envelope_schedule_destroy(PG_FUNCTION_ARGS)
{
	char	   *tenant = args_text(fcinfo, 0, "tenant");
	Loss		loss;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the time until then must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	loss.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	initStringInfo(&loss.json);
	appendStringInfoChar(&loss.json, '[');
	verify_tenant(tenant, false, put_loss, &loss);
	appendStringInfoChar(&loss.json, ']');
	destruction_request(tenant, interval_ms(PG_GETARG_INTERVAL_P(1)), loss.json.data);
	return (Datum) 0;
}

/* envelope_approve_destroy(tenant text) returns how many are still wanted. */
Datum
envelope_approve_destroy(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(destruction_approve(args_text(fcinfo, 0, "tenant")));
}

/* envelope_cancel_destroy(tenant text) */
Datum
envelope_cancel_destroy(PG_FUNCTION_ARGS)
{
	destruction_cancel(args_text(fcinfo, 0, "tenant"));
	PG_RETURN_VOID();
}

/* An interval argument that is more than nothing, or NULL */
static const Interval *
take_interval(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument))
		return NULL;
	if (interval_ms(PG_GETARG_INTERVAL_P(argument)) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the interval must be more than nothing")));
	return PG_GETARG_INTERVAL_P(argument);
}

/* envelope_set_rotation_interval(tenant text or NULL, every interval) */
Datum
envelope_set_rotation_interval(PG_FUNCTION_ARGS)
{
	char	   *tenant = args_text_or_null(fcinfo, 0);

	maintenance_set_interval(tenant ? "tenant" : "default", tenant ? tenant : "",
							 take_interval(fcinfo, 1));
	PG_RETURN_VOID();
}

/* envelope_set_kek_rotation_interval(kek text, every interval) */
Datum
envelope_set_kek_rotation_interval(PG_FUNCTION_ARGS)
{
	maintenance_set_interval("kek", args_text(fcinfo, 0, "KEK"), take_interval(fcinfo, 1));
	PG_RETURN_VOID();
}

/* envelope_run_maintenance(batch_size int, pause interval) */
Datum
envelope_run_maintenance(PG_FUNCTION_ARGS)
{
	RotationPace pace;

	take_pace(fcinfo, 0, &pace);
	steps_begin(fcinfo, "envelope_run_maintenance");
	maintenance_run(&pace);
	steps_end();
	PG_RETURN_VOID();
}
