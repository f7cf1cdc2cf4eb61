/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Writing the tables of keks, tenants and keys.
 *
 * All writing goes through SPI, so that it is seen by triggers and by whatever
 * else makes the tables more than heaps.  It runs as the tables' owner, so that
 * whoever may call a function needs no privilege on the tables; search_path is
 * pinned and every name is qualified, so that nothing of the caller's is run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "keys/store.h"

#define MAX_PARAMS 8

static Oid
owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Become the owner of the tables and connect to SPI, until store_end.  An
 * error in between undoes both with the transaction.
 */
void
store_begin(OwnerScope *scope)
{
	Oid			owner = owner_of(catalog_relation("tenants"));

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	GetUserIdAndSecContext(&scope->user, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_LOCAL_USERID_CHANGE);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
store_end(OwnerScope *scope)
{
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->sec_context);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not finish with SPI");
}

/*
 * Execute a statement, between store_begin and store_end; returns how many
 * rows it touched.  Rows that it returned are in SPI_tuptable.  The plan is
 * kept in *plan for the session, unless plan is NULL.
 */
static uint64
execute(SPIPlanPtr *plan, const char *statement, int nparams,
		const StoreParam *params)
{
	Oid			types[MAX_PARAMS];
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];
	int			rc;

	Assert(nparams <= MAX_PARAMS);
	for (int i = 0; i < nparams; i++)
	{
		types[i] = params[i].type;
		values[i] = params[i].value;
		nulls[i] = params[i].isnull ? 'n' : ' ';
	}

	if (plan == NULL)
		rc = SPI_execute_with_args(statement, nparams, types, values, nulls, false, 0);
	else
	{
		if (*plan == NULL)
		{
			SPIPlanPtr	prepared = SPI_prepare(statement, nparams, types);

			if (prepared == NULL || SPI_keepplan(prepared) != 0)
				elog(ERROR, "could not prepare a statement on the key tables");
			*plan = prepared;
		}
		rc = SPI_execute_plan(*plan, values, nulls, false, 0);
	}
	if (rc < 0)
		elog(ERROR, "a statement on the key tables failed: %s",
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/* The same for a statement that is not worth keeping a plan for */
uint64
store_execute(const char *statement, int nparams, const StoreParam *params)
{
	return execute(NULL, statement, nparams, params);
}

/* A parameter of type text; NULL where value is. */
StoreParam
store_text(const char *value)
{
	StoreParam	param = {TEXTOID, (Datum) 0, value == NULL};

	if (value)
		param.value = CStringGetTextDatum(value);
	return param;
}

/*
 * Refuse (0A000) to change keys in a SERIALIZABLE transaction: whoever reads
 * keys would conflict with it.
 */
void
store_refuse_serializable(const char *what)
{
	if (IsolationIsSerializable())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot %s in a SERIALIZABLE transaction", what),
				 errhint("Do it in a transaction of its own, at another isolation level.")));
}

/*
 * The name of the default KEK, palloc'd in the SPI context; 55000 where there
 * is none.
 */
char *
store_default_kek(void)
{
	if (store_execute("SELECT name FROM envelope.keks WHERE is_default", 0, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no default KEK"),
				 errhint("Name a KEK, or make one with envelope_create_kek(name, uri, is_default => true).")));
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * Insert a tenant.  False where it exists; waits for a transaction that is
 * about to make it.
 */
bool
store_insert_tenant(const char *tenant, const char *kek)
{
	static SPIPlanPtr plan = NULL;
	StoreParam	params[] = {store_text(tenant), store_text(kek)};

	return execute(&plan, "INSERT INTO envelope.tenants (tenant_id, kek) VALUES ($1, $2) "
						 "ON CONFLICT (tenant_id) DO NOTHING",
						 lengthof(params), params) > 0;
}

static StoreParam
bytes_param(const uint8 *bytes, int len)
{
	StoreParam	param = {BYTEAOID, (Datum) 0, false};
	bytea	   *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), bytes, len);
	param.value = PointerGetDatum(value);
	return param;
}

/*
 * Insert a key that the KMS has generated, as the tenant's active one.
 */
void
store_insert_key(int64 key_id, const char *tenant, KeyPurpose purpose,
				 const char *kek, const KmsReply *reply)
{
	static SPIPlanPtr plan = NULL;
	StoreParam	params[] = {
		{INT8OID, Int64GetDatum(key_id), false},
		store_text(tenant),
		store_text(purpose_name(purpose)),
		store_text(kek),
		store_text(reply->kek_version),
		bytes_param(reply->wrapped, reply->wrapped_len),
		bytes_param(reply->key_check, KEY_CHECK_BYTES)
	};

	(void) execute(&plan, "INSERT INTO envelope.tenant_keys "
				  "(key_id, tenant_id, purpose, kek, kek_version, wrapped_dek, key_check, state) "
				  "VALUES ($1, $2, $3, $4, $5, $6, $7, 'active')",
				  lengthof(params), params);
}
