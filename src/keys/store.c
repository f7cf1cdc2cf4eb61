/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Writing the tables of keks, tenants and keys.
 *
 * All writing goes through SPI, so that it is seen by triggers and by whatever
 * else makes the tables more than heaps.  It runs as the tables' owner, so that
 * whoever may call a function needs no privilege on the tables; search_path is
 * pinned to pg_catalog and the tables are qualified, so that nothing of the
 * caller's is run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "keys/store.h"

#define MAX_PARAMS 8

/* Who owns a relation */
Oid
relation_owner(Oid relid)
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
 * Wait until no other transaction changes privileges on the extension's objects.
 * PostgreSQL fails where two change those of one object, instead of waiting.
 */
void
store_lock_privileges(void)
{
	LockDatabaseObject(ExtensionRelationId, get_extension_oid("envelope", false),
					   0, ShareUpdateExclusiveLock);
}

/*
 * Become a role, with SECURITY_ flags, pin search_path and connect to SPI, until
 * store_end.  An error in between undoes all three with the transaction.
 */
void
store_begin_as(OwnerScope *scope, Oid owner, int sec_flags)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	GetUserIdAndSecContext(&scope->user, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | sec_flags);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Become the owner of the key tables. */
void
store_begin(OwnerScope *scope)
{
	store_begin_as(scope, relation_owner(catalog_relation("tenants")),
				   SECURITY_LOCAL_USERID_CHANGE);
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
 * rows it touched.  Rows that it returned are in SPI_tuptable.
 */
uint64
store_execute(const char *statement, int nparams, const StoreParam *params)
{
	Oid			types[MAX_PARAMS];
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS] = {0};
	int			rc;

	Assert(nparams <= MAX_PARAMS);
	for (int i = 0; i < nparams; i++)
	{
		types[i] = params[i].type;
		values[i] = params[i].value;
		nulls[i] = params[i].isnull ? 'n' : ' ';
	}
	rc = SPI_execute_with_args(statement, nparams, types, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "a statement on the key tables failed: %s",
			 SPI_result_code_string(rc));
	return SPI_processed;
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
 * Keep a KEK from being dropped until the transaction ends: takes FOR KEY SHARE
 * on its row.  False where there is none.
 */
bool
store_lock_kek(const char *name)
{
	StoreParam	params[] = {store_text(name)};

	return store_execute("SELECT FROM envelope.keks WHERE name = $1 FOR KEY SHARE",
						 lengthof(params), params) > 0;
}

/*
 * The transactions that have the row of a KEK locked or changed, which those do who
 * make keys under it, until they end: their xids, as a list of Oids.
 */
List *
store_lockers_of_kek(const char *name)
{
	Relation	rel = table_open(catalog_relation("keks"), AccessShareLock);
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), "name");
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Buffer		buffer = ((HeapScanDesc) scan)->rs_cbuf;
		bool		isnull;
		Datum		value = heap_getattr(tuple, attno, RelationGetDescr(rel), &isnull);
		TransactionId xmax;
		uint16		infomask;

		if (strcmp(TextDatumGetCString(value), name) != 0)
			continue;
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		xmax = HeapTupleHeaderGetRawXmax(tuple->t_data);
		infomask = tuple->t_data->t_infomask;
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		if (infomask & HEAP_XMAX_INVALID)
			continue;
		if (infomask & HEAP_XMAX_IS_MULTI)
		{
			MultiXactMember *members;
			int			nmembers = GetMultiXactIdMembers(xmax, &members, false,
														 HEAP_XMAX_IS_LOCKED_ONLY(infomask));

			for (int i = 0; i < nmembers; i++)
				result = lappend_oid(result, (Oid) members[i].xid);
		}
		else
			result = lappend_oid(result, (Oid) xmax);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/* A parameter that is an array of n elements */
static StoreParam
array_param(Datum *elements, int n, Oid type)
{
	StoreParam	param = {get_array_type(type), (Datum) 0, false};
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	param.value = PointerGetDatum(construct_array(elements, n, type, len, byval, align));
	return param;
}

/* A parameter of type text[] */
StoreParam
store_texts(char **values, int n)
{
	Datum	   *elements = palloc(mul_size(Max(n, 1), sizeof(Datum)));

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(values[i]);
	return array_param(elements, n, TEXTOID);
}

/* A parameter of type bigint[] */
StoreParam
store_int8s(const int64 *values, int n)
{
	Datum	   *elements = palloc(mul_size(Max(n, 1), sizeof(Datum)));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return array_param(elements, n, INT8OID);
}

/* A parameter of type bytea[] */
StoreParam
store_byteas(bytea **values, int n)
{
	Datum	   *elements = palloc(mul_size(Max(n, 1), sizeof(Datum)));

	for (int i = 0; i < n; i++)
		elements[i] = PointerGetDatum(values[i]);
	return array_param(elements, n, BYTEAOID);
}

/*
 * Insert tenants, and set inserted[i] to whether tenants[i] was new.  Waits for
 * transactions that are about to make one of them.  Returns how many were new.
 */
int
store_insert_tenants(char **tenants, int ntenants, const char *kek, bool *inserted)
{
	StoreParam	params[] = {store_texts(tenants, ntenants), store_text(kek)};
	uint64		nnew;
	uint64		next = 0;

	nnew = store_execute("INSERT INTO envelope.tenants (tenant_id, kek)"
						 " SELECT t.id, $2 FROM unnest($1) WITH ORDINALITY t (id, n)"
						 " ORDER BY t.n"
						 " ON CONFLICT (tenant_id) DO NOTHING"
						 " RETURNING tenant_id", lengthof(params), params);

	/* The rows come back in order; those left out are not new. */
	for (int i = 0; i < ntenants; i++)
	{
		inserted[i] = next < nnew &&
			strcmp(tenants[i], SPI_getvalue(SPI_tuptable->vals[next],
											SPI_tuptable->tupdesc, 1)) == 0;
		if (inserted[i])
			next++;
	}
	return (int) nnew;
}

static Datum
bytes_datum(const uint8 *bytes, int len)
{
	bytea	   *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), bytes, len);
	return PointerGetDatum(value);
}

/*
 * Insert keys that the KMS has generated under a KEK, as the active ones of
 * their tenants.
 */
void
store_insert_keys(const NewKey *keys, int nkeys, const char *kek)
{
	Datum	   *columns[6];
	StoreParam	params[7];

	for (int i = 0; i < lengthof(columns); i++)
		columns[i] = palloc(mul_size(Max(nkeys, 1), sizeof(Datum)));
	for (int i = 0; i < nkeys; i++)
	{
		const NewKey *key = &keys[i];

		columns[0][i] = Int64GetDatum(key->key_id);
		columns[1][i] = CStringGetTextDatum(key->tenant);
		columns[2][i] = CStringGetTextDatum(purpose_name(key->purpose));
		columns[3][i] = CStringGetTextDatum(key->kek_version);
		columns[4][i] = bytes_datum(key->wrapped, key->wrapped_len);
		columns[5][i] = bytes_datum(key->key_check, KEY_CHECK_BYTES);
	}
	params[0] = array_param(columns[0], nkeys, INT8OID);
	params[1] = array_param(columns[1], nkeys, TEXTOID);
	params[2] = array_param(columns[2], nkeys, TEXTOID);
	params[3] = array_param(columns[3], nkeys, TEXTOID);
	params[4] = array_param(columns[4], nkeys, BYTEAOID);
	params[5] = array_param(columns[5], nkeys, BYTEAOID);
	params[6] = store_text(kek);

	(void) store_execute("INSERT INTO envelope.tenant_keys"
						 " (key_id, tenant_id, purpose, kek_version, wrapped_dek, key_check, kek, state)"
						 " SELECT k.*, $7, 'active'"
						 " FROM ROWS FROM (unnest($1), unnest($2),"
						 " unnest($3), unnest($4),"
						 " unnest($5), unnest($6)) k",
						 lengthof(params), params);
	for (int i = 0; i < lengthof(columns); i++)
		pfree(columns[i]);
}
