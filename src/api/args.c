/*-------------------------------------------------------------------------
 *
 * args.c
 *	  Arguments that many SQL functions have.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "api/args.h"
#include "compat.h"
#include "keys/encoding.h"

/* The longest context, in bytes of UTF-8 */
#define CONTEXT_MAX_BYTES 65535

pg_noreturn static void
report_null(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("the %s must not be null", name)));
}

/* Take a tenant id of type text. */
void
args_tenant_text(LabelArgs *args, Datum tenant)
{
	text	   *value = DatumGetTextPP(tenant);
	size_t		len = VARSIZE_ANY_EXHDR(value);
	const char *utf8 = utf8_from_server(VARDATA_ANY(value), &len);

	if (len < sizeof(args->buffer))
	{
		memcpy(args->buffer, utf8, len);
		args->buffer[len] = '\0';
		args->label.tenant = args->buffer;
	}
	else
		args->label.tenant = pnstrdup(utf8, len);	/* no tenant has it */
}

/* Take a tenant id of type bigint. */
void
args_tenant_bigint(LabelArgs *args, Datum tenant)
{
	(void) pg_lltoa(DatumGetInt64(tenant), args->buffer);
	args->label.tenant = args->buffer;
}

/* Take a tenant id of type uuid. */
void
args_tenant_uuid(LabelArgs *args, Datum tenant)
{
	args->label.tenant = DatumGetCString(DirectFunctionCall1(uuid_out, tenant));
}

/*
 * Take the tenant, argument 0, and the context, argument 2, of a function that
 * has a value to work on.  22004 where one of them is null.
 */
void
args_label(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant, LabelArgs *args)
{
	text	   *context;

	if (PG_ARGISNULL(0))
		report_null("tenant");
	if (PG_ARGISNULL(2))
		report_null("context");

	take_tenant(args, PG_GETARG_DATUM(0));
	context = PG_GETARG_TEXT_PP(2);
	args->label.context_len = VARSIZE_ANY_EXHDR(context);
	args->label.context = utf8_from_server(VARDATA_ANY(context),
										   &args->label.context_len);
	if (args->label.context_len > CONTEXT_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a context of %zu bytes is too long", args->label.context_len),
				 errdetail("It has at most %d bytes in UTF-8.", CONTEXT_MAX_BYTES)));
}

/* A text argument as a palloc'd string; 22004 where it is null. */
char *
args_text(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		report_null(name);
	return text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* A text argument as a palloc'd string; NULL where it is null. */
char *
args_text_or_null(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/*
 * A text[] argument as palloc'd strings; NULL where it is null.  22004 where an
 * element is.
 */
char	  **
args_text_array(FunctionCallInfo fcinfo, int argument, const char *name,
				int *nelements)
{
	Datum	   *elements;
	bool	   *nulls;
	char	  **strings;

	*nelements = 0;
	if (PG_ARGISNULL(argument))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, nelements);
	strings = palloc(Max(*nelements, 1) * sizeof(char *));
	for (int i = 0; i < *nelements; i++)
	{
		if (nulls[i])
			report_null(name);
		strings[i] = TextDatumGetCString(elements[i]);
	}
	return strings;
}
