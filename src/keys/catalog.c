/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Reading the tables of keks, tenants and keys as they are now.
 *
 * Whether a key may be used is asked of the newest committed state, whatever
 * snapshot the statement runs under: a tenant suspended an hour ago must not
 * open in a REPEATABLE READ transaction of two hours.  So rows are read as
 * PostgreSQL reads its own catalogs, by systable_beginscan without a snapshot,
 * which on a table that is no system catalog takes a new one for every scan.
 * Such scans ask for no privilege, work in parallel workers and on standbys,
 * and see what this transaction's earlier commands did.
 *
 * The relations are named here and nowhere else in C.  Writing is the business
 * of keys/store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "keys/catalog.h"
#include "keys/encoding.h"

/* Copies what is wanted of a row; false where it is not the row */
typedef bool (*copy_row_fn) (HeapTuple tuple, TupleDesc desc, void *arg);

/* A relation of ours; InvalidOid where envelope is not in this database. */
Oid
catalog_relation_if_any(const char *name)
{
	Oid			schema = get_namespace_oid(ENVELOPE_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

/* The same; 42P01 where it is not there. */
Oid
catalog_relation(const char *name)
{
	Oid			relid = catalog_relation_if_any(name);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("envelope is not installed in this database"),
				 errdetail("There is no relation %s.%s.", ENVELOPE_SCHEMA, name),
				 errhint("Run CREATE EXTENSION envelope.")));
	return relid;
}

/* The state of that name; 23514 where there is none. */
TenantState
tenant_state_parse(const char *name)
{
	if (strcmp(name, "active") == 0)
		return TENANT_ACTIVE;
	if (strcmp(name, "suspended") == 0)
		return TENANT_SUSPENDED;
	if (strcmp(name, "scheduled") == 0)
		return TENANT_SCHEDULED;
	if (strcmp(name, "destroyed") == 0)
		return TENANT_DESTROYED;
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("\"%s\" is not a state of a tenant", name)));
}

/* The state of that name; 23514 where there is none. */
KeyState
key_state_parse(const char *name)
{
	if (strcmp(name, "active") == 0)
		return KEY_ACTIVE;
	if (strcmp(name, "retired") == 0)
		return KEY_RETIRED;
	if (strcmp(name, "scheduled") == 0)
		return KEY_SCHEDULED;
	if (strcmp(name, "destroyed") == 0)
		return KEY_DESTROYED;
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("\"%s\" is not a state of a key", name)));
}

/*
 * Find a row by an index and copy what is wanted of it while it is held; false
 * where none is found.
 * Takes AccessShareLock on table and index, and gives it back.  The conditions
 * are used up: systable_beginscan writes to them.
 */
static bool
read_row(const char *table, const char *index, int nkeys, ScanKey keys,
		 copy_row_fn copy, void *arg)
{
	Relation	rel = table_open(catalog_relation(table), AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;

	scan = systable_beginscan(rel, catalog_relation(index), true, NULL, nkeys, keys);
	do
		tuple = systable_getnext(scan);
	while (HeapTupleIsValid(tuple) && !copy(tuple, RelationGetDescr(rel), arg));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* A condition on a text column, whose collation is "C" */
static void
text_key(ScanKey key, AttrNumber attnum, const char *value)
{
	ScanKeyEntryInitialize(key, 0, attnum, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(value));
}

/* The same for a tenant in UTF-8 */
static void
tenant_key(ScanKey key, AttrNumber attnum, const char *tenant)
{
	size_t		len = strlen(tenant);

	text_key(key, attnum, utf8_to_server(tenant, &len));
}

/* A text column that is never null, as a palloc'd string */
static char *
get_text(HeapTuple tuple, TupleDesc desc, AttrNumber attnum)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attnum, desc, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column \"%s\" of a key table is null",
						NameStr(TupleDescAttr(desc, attnum - 1)->attname))));
	return TextDatumGetCString(value);
}

/*
 * Copy a text column as UTF-8 into out, of size bytes; null is copied as the
 * empty string.  Elsewhere it was seen to that it fits; it is an error where
 * somebody went around that.
 */
static void
copy_utf8(HeapTuple tuple, TupleDesc desc, AttrNumber attnum,
		  char *out, size_t size)
{
	size_t		len;
	const char *utf8;

	out[0] = '\0';
	if (heap_attisnull(tuple, attnum, desc))
		return;
	utf8 = get_text(tuple, desc, attnum);
	len = strlen(utf8);
	utf8 = utf8_from_server(utf8, &len);
	if (len >= size)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column \"%s\" of a key table is longer than %zu bytes",
						NameStr(TupleDescAttr(desc, attnum - 1)->attname), size - 1)));
	memcpy(out, utf8, len);
	out[len] = '\0';
}

/*
 * Copy a bytea column into out, of size bytes, and return its length; 0 where
 * it is null.
 */
static int
copy_bytes(HeapTuple tuple, TupleDesc desc, AttrNumber attnum,
		   uint8 *out, int size)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attnum, desc, &isnull);
	bytea	   *bytes;
	int			len;

	if (isnull)
		return 0;
	bytes = DatumGetByteaPP(value);
	len = VARSIZE_ANY_EXHDR(bytes);
	if (len > size)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column \"%s\" of a key table is longer than %d bytes",
						NameStr(TupleDescAttr(desc, attnum - 1)->attname), size)));
	memcpy(out, VARDATA_ANY(bytes), len);
	return len;
}

static bool
copy_tenant_state(HeapTuple tuple, TupleDesc desc, void *arg)
{
	*(TenantState *) arg =
		tenant_state_parse(get_text(tuple, desc, Anum_tenants_state));
	return true;
}

/*
 * The index of active keys holds no other, but a session with
 * ignore_system_indexes goes through the table instead.
 */
static bool
copy_active_key_id(HeapTuple tuple, TupleDesc desc, void *arg)
{
	bool		isnull;

	if (key_state_parse(get_text(tuple, desc, Anum_tenant_keys_state)) != KEY_ACTIVE)
		return false;
	*(int64 *) arg = DatumGetInt64(heap_getattr(tuple, Anum_tenant_keys_key_id,
												desc, &isnull));
	return true;
}

/*
 * Read a tenant (UTF-8) and its active keys.  False where there is none.
 */
bool
catalog_read_tenant(const char *tenant, TenantRow *row)
{
	ScanKeyData keys[2];

	tenant_key(&keys[0], Anum_tenants_tenant_id, tenant);
	if (!read_row("tenants", "tenants_pkey", 1, keys, copy_tenant_state, &row->state))
		return false;

	for (int i = 0; i < KEY_PURPOSES; i++)
	{
		row->active_keys[i] = NO_KEY;
		tenant_key(&keys[0], Anum_tenant_keys_tenant_id, tenant);
		text_key(&keys[1], Anum_tenant_keys_purpose, purpose_name((KeyPurpose) i));
		(void) read_row("tenant_keys", "tenant_keys_active", 2, keys,
						copy_active_key_id, &row->active_keys[i]);
	}
	return true;
}

static bool
copy_key(HeapTuple tuple, TupleDesc desc, void *arg)
{
	KeyRow	   *row = arg;

	copy_utf8(tuple, desc, Anum_tenant_keys_tenant_id, row->tenant, sizeof(row->tenant));
	if (!purpose_parse(get_text(tuple, desc, Anum_tenant_keys_purpose), &row->purpose))
		elog(ERROR, "unknown purpose of a key");
	row->state = key_state_parse(get_text(tuple, desc, Anum_tenant_keys_state));
	return true;
}

/*
 * Read what may be kept in memory of a key.  False where there is none.
 */
bool
catalog_read_key(int64 key_id, KeyRow *row)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_tenant_keys_key_id, BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(key_id));
	return read_row("tenant_keys", "tenant_keys_pkey", 1, &key, copy_key, row);
}

static bool
copy_kek(HeapTuple tuple, TupleDesc desc, void *arg)
{
	KmsRequest *request = arg;
	bool		isnull;
	Datum		options = heap_getattr(tuple, Anum_keks_options, desc, &isnull);
	Jsonb	   *jsonb;
	char	   *json;
	size_t		len;
	const char *utf8;

	copy_utf8(tuple, desc, Anum_keks_uri, request->uri, sizeof(request->uri));

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a KEK has null options")));
	jsonb = DatumGetJsonbP(options);
	json = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	len = strlen(json);
	utf8 = utf8_from_server(json, &len);
	if (len >= sizeof(request->options))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the options of a KEK are longer than %zu bytes",
						sizeof(request->options) - 1)));
	memcpy(request->options, utf8, len);
	request->options[len] = '\0';
	return true;
}

/*
 * Read a KEK and fill in what a request says of it.  False where there is
 * none.
 */
bool
catalog_read_kek(const char *name, KmsRequest *request)
{
	ScanKeyData key;

	if (strlen(name) >= sizeof(request->kek))
		return false;
	text_key(&key, Anum_keks_name, name);
	strlcpy(request->kek, name, sizeof(request->kek));
	return read_row("keks", "keks_pkey", 1, &key, copy_kek, request);
}

static bool
copy_nothing(HeapTuple tuple, TupleDesc desc, void *arg)
{
	return true;
}

/* Is there a tenant or a key that names this KEK? */
bool
catalog_kek_is_used(const char *name)
{
	ScanKeyData key;

	text_key(&key, Anum_tenants_kek, name);
	if (read_row("tenants", "tenants_kek", 1, &key, copy_nothing, NULL))
		return true;
	text_key(&key, Anum_tenant_keys_kek, name);
	return read_row("tenant_keys", "tenant_keys_kek", 1, &key, copy_nothing, NULL);
}

typedef struct WrappedKey
{
	KeyRow	   *row;
	KmsRequest *request;
} WrappedKey;

static bool
copy_wrapped(HeapTuple tuple, TupleDesc desc, void *arg)
{
	WrappedKey *wrapped = arg;
	KmsRequest *request = wrapped->request;

	copy_key(tuple, desc, wrapped->row);
	copy_utf8(tuple, desc, Anum_tenant_keys_kek, request->kek, sizeof(request->kek));
	copy_utf8(tuple, desc, Anum_tenant_keys_kek_version, request->kek_version,
			  sizeof(request->kek_version));
	request->wrapped_len = copy_bytes(tuple, desc, Anum_tenant_keys_wrapped_dek,
									  request->wrapped, sizeof(request->wrapped));
	if (copy_bytes(tuple, desc, Anum_tenant_keys_key_check,
				   request->key_check, sizeof(request->key_check)) != KEY_CHECK_BYTES)
		memset(request->key_check, 0, sizeof(request->key_check));
	return true;
}

/*
 * Read a key and its KEK, and fill in a request to unwrap it: all but
 * operation, priority, database and generation.  request->wrapped_len is 0
 * where the key is destroyed.  False where there is no such key.
 */
bool
catalog_read_wrapped(int64 key_id, KeyRow *row, KmsRequest *request)
{
	WrappedKey	wrapped = {row, request};
	ScanKeyData key;

	ScanKeyInit(&key, Anum_tenant_keys_key_id, BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(key_id));
	if (!read_row("tenant_keys", "tenant_keys_pkey", 1, &key, copy_wrapped, &wrapped))
		return false;

	request->key_id = key_id;
	request->purpose = row->purpose;
	strlcpy(request->tenant, row->tenant, sizeof(request->tenant));
	if (request->kek[0] != '\0' && !catalog_read_kek(request->kek, request))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("KEK \"%s\" does not exist", request->kek)));
	return true;
}
