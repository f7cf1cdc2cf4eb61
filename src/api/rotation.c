/*-------------------------------------------------------------------------
 *
 * rotation.c
 *	  The SQL functions and procedures of columns that are registered, and of
 *	  rotation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "errors.h"
#include "keys/encoding.h"
#include "lifecycle/rotation.h"
#include "lifecycle/steps.h"
#include "tables/registry.h"

PG_FUNCTION_INFO_V1(envelope_register_column);
PG_FUNCTION_INFO_V1(envelope_unregister_column);

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

/* How fast to go: arguments 1 and 2; 22023 for what makes no sense. */
static void
take_pace(FunctionCallInfo fcinfo, RotationPace * pace)
{
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch size and pause must not be null")));
	pace->batch_size = PG_GETARG_INT32(1);
	pace->pause_ms = interval_ms(PG_GETARG_INTERVAL_P(2));
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

	take_pace(fcinfo, &pace);
	(void) take_tenant(fcinfo, take);
	steps_begin(fcinfo, "envelope_rotate_tenant");
	tenant = take_tenant(fcinfo, take);
	rotation_check_tenant(tenant);
	(void) rotation_of_tenants(&tenant, 1, &pace, TROUBLE_THROW);
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
