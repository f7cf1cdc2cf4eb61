/*-------------------------------------------------------------------------
 *
 * keks.c
 *	  The SQL functions that make, change, drop and check KEKs.
 *
 * None of them but envelope_check_kek talks to a KMS: a KEK can be set up
 * before its KMS is there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "api/args.h"
#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "kms/ask.h"
#include "kms/options.h"
#include "kms/provider.h"

PG_FUNCTION_INFO_V1(envelope_create_kek);
PG_FUNCTION_INFO_V1(envelope_alter_kek);
PG_FUNCTION_INFO_V1(envelope_drop_kek);
PG_FUNCTION_INFO_V1(envelope_check_kek);

/* Refuse (22023) a name that is none. */
static void
check_name(const char *name)
{
	size_t		len = strlen(name);

	if (len == 0 || len >= KEK_NAME_MAX ||
		strspn(name, "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a name for a KEK", name),
				 errdetail("It has 1 to %d letters, digits, underscores, hyphens and points.",
						   KEK_NAME_MAX - 1)));
}

/*
 * Somebody may have put a secret into what is refused: neither is it shown, nor
 * is the statement written to the log beside the error.
 */
#define hide_statement()	errhidestmt(true), errhidecontext(true)

/* The provider that a URI names; 22023 where it is malformed. */
static const KmsProvider *
check_uri(const char *uri)
{
	const KmsProvider *provider = kms_provider_for(uri);

	if (provider == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 hide_statement(),
				 errmsg("the URI names no kind of KMS that is known"),
				 errhint("A URI has one of these forms: %s.", kms_known_schemes())));
	if (strlen(uri) >= KEK_URI_MAX || !provider->check_uri(kms_uri_rest(provider, uri)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 hide_statement(),
				 errmsg("the URI is malformed"),
				 errhint("It has the form %s.  Credentials are no part of it.", provider->uri_form)));
	return provider;
}

/* Refuse (22023) options that the provider does not know. */
static void
check_options(const KmsProvider *provider, Jsonb *options)
{
	JsonbIterator *iterator = JsonbIteratorInit(&options->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 hide_statement(),
				 errmsg("the options of a KEK must be a JSON object")));

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			name = pnstrdup(value.val.string.val, value.val.string.len);
			if (option_is_secret(name))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 hide_statement(),
						 errmsg("option \"%s\" of a KEK would hold a secret", name),
						 errhint("Put it into a profile of envelope.credentials_file, and name that in the option \"profile\".")));
			if (!kms_provider_has_option(provider, name))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 hide_statement(),
						 errmsg("a KEK of the form %s has no option \"%s\"",
								provider->uri_form, name),
						 errhint("Credentials are never options of a KEK.")));
		}
		else if (token == WJB_VALUE && value.type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 hide_statement(),
					 errmsg("option \"%s\" of a KEK must be a string", name)));
	}
	if (strlen(JsonbToCString(NULL, &options->root, VARSIZE(options))) >= KEK_OPTIONS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the options of a KEK are too long"),
				 errdetail("They have at most %d bytes.", KEK_OPTIONS_MAX - 1)));
}

/*
 * No KEK is the default any more.  Takes SHARE ROW EXCLUSIVE on the table, so
 * that of two who move the default the second waits for the first.
 */
static void
clear_default(void)
{
	(void) store_execute("LOCK TABLE envelope.keks IN SHARE ROW EXCLUSIVE MODE", 0, NULL);
	(void) store_execute("UPDATE envelope.keks SET is_default = false WHERE is_default",
						 0, NULL);
}

/*
 * envelope_create_kek(name text, uri text, options jsonb, is_default bool)
 *
 * 42710 where it exists, 22023 for what is malformed or unknown.
 */
Datum
envelope_create_kek(PG_FUNCTION_ARGS)
{
	char	   *name = args_text(fcinfo, 0, "name");
	char	   *uri = args_text(fcinfo, 1, "URI");
	Jsonb	   *options;
	OwnerScope	scope;

	if (PG_ARGISNULL(2) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("options and is_default must not be null")));
	options = PG_GETARG_JSONB_P(2);
	check_name(name);
	check_options(check_uri(uri), options);
	store_refuse_serializable("create a KEK");

	store_begin(&scope);
	{
		StoreParam	params[] = {
			store_text(name),
			store_text(uri),
			{JSONBOID, JsonbPGetDatum(options), false},
			{BOOLOID, PG_GETARG_DATUM(3), false}
		};

		if (PG_GETARG_BOOL(3))
			clear_default();
		if (store_execute("INSERT INTO envelope.keks (name, uri, options, is_default) "
						  "VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
						  lengthof(params), params) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("KEK \"%s\" already exists", name)));
		audit_record("kek.create", NULL, name, NO_KEY, NULL);
	}
	store_end(&scope);
	PG_RETURN_VOID();
}

/* Read a KEK, or throw 42704. */
static KmsRequest *
read_kek(const char *name)
{
	KmsRequest *request = palloc0(sizeof(KmsRequest));

	if (!catalog_read_kek(name, request))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist", name)));
	return request;
}

/*
 * envelope_alter_kek(name text, options jsonb, is_default bool)
 *
 * What is null stays as it is.  42704 where there is no such KEK.
 */
Datum
envelope_alter_kek(PG_FUNCTION_ARGS)
{
	char	   *name = args_text(fcinfo, 0, "name");
	KmsRequest *kek = read_kek(name);
	OwnerScope	scope;

	if (!PG_ARGISNULL(1))
		check_options(check_uri(kek->uri), PG_GETARG_JSONB_P(1));
	store_refuse_serializable("alter a KEK");

	store_begin(&scope);
	{
		StoreParam	params[] = {
			store_text(name),
			{JSONBOID, PG_GETARG_DATUM(1), PG_ARGISNULL(1)},
			{BOOLOID, PG_GETARG_DATUM(2), PG_ARGISNULL(2)}
		};

		if (!PG_ARGISNULL(2) && PG_GETARG_BOOL(2))
			clear_default();
		(void) store_execute("UPDATE envelope.keks SET options = coalesce($2, options),"
							 " is_default = coalesce($3, is_default)"
							 " WHERE name = $1",
							 lengthof(params), params);
		audit_record("kek.alter", NULL, name, NO_KEY, NULL);
	}
	store_end(&scope);
	PG_RETURN_VOID();
}

/*
 * envelope_drop_kek(name text)
 *
 * 42704 where there is no such KEK, 2BP01 where a tenant or key hangs on it.
 */
Datum
envelope_drop_kek(PG_FUNCTION_ARGS)
{
	char	   *name = args_text(fcinfo, 0, "name");
	StoreParam	params[] = {store_text(name)};
	OwnerScope	scope;

	(void) read_kek(name);
	store_refuse_serializable("drop a KEK");
	store_begin(&scope);
	(void) store_execute("DELETE FROM envelope.keks WHERE name = $1",
						 1, params);
	audit_record("kek.drop", NULL, name, NO_KEY, NULL);
	store_end(&scope);
	PG_RETURN_VOID();
}

/*
 * envelope_check_kek(name text, OUT outcome text, OUT latency_ms float8,
 *					  OUT detail text)
 *
 * Has the worker generate and unwrap a key, which is then forgotten.
 */
Datum
envelope_check_kek(PG_FUNCTION_ARGS)
{
	char	   *name = args_text(fcinfo, 0, "name");
	KmsRequest *request = read_kek(name);
	KmsReply   *reply = palloc(sizeof(KmsReply));
	instr_time	start;
	instr_time	duration;
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	request->operation = KMS_CHECK;
	request->priority = KMS_FOREGROUND;
	request->database = MyDatabaseId;
	request->key_id = 1;
	strlcpy(request->tenant, "envelope_check_kek", sizeof(request->tenant));

	INSTR_TIME_SET_CURRENT(start);
	kms_call(request, reply);
	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);

	values[0] = BoolGetDatum(reply->outcome == KMS_OK);
	values[1] = CStringGetTextDatum(kms_outcome_name(reply->outcome));
	values[2] = Float8GetDatum(INSTR_TIME_GET_MILLISEC(duration));
	nulls[3] = reply->detail[0] == '\0';
	values[3] = CStringGetTextDatum(reply->detail);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
