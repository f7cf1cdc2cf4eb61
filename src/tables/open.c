/*-------------------------------------------------------------------------
 *
 * open.c
 *	  The SQL functions that open what a protected table stores.
 *
 * The planner puts calls of them where a statement reads a protected column
 * (substitute.c).  That they are functions with privileges of their own is what
 * makes reading without the privilege an error, for whoever runs the statement,
 * whatever view it goes through.
 *
 * What a call site does not change from row to row, the type and the context,
 * is kept with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "compat.h"
#include "errors.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "tables/protection.h"
#include "tables/value.h"

PG_FUNCTION_INFO_V1(envelope_open_for_text);
PG_FUNCTION_INFO_V1(envelope_open_for_bigint);
PG_FUNCTION_INFO_V1(envelope_open_for_uuid);
PG_FUNCTION_INFO_V1(envelope_open_row);

/* What a call site of open keeps */
typedef struct OpenSite
{
	ValueType	type;
	char	   *context;		/* UTF-8; NULL where it is not kept */
	size_t		context_len;
} OpenSite;

/* A protected column, ready to be opened */
typedef struct OpenColumn
{
	AttrNumber	carrier;
	AttrNumber	sidecar;
	AttrNumber	term;
	ValueType	type;
	char	   *context;		/* UTF-8 */
	size_t		context_len;
} OpenColumn;

/* What a call site of open_row keeps */
typedef struct OpenRowSite
{
	Oid			rowtype;
	int32		typmod;
	uint64		sequence;		/* at which the protection was read */
	MemoryContext context;
	TupleDesc	desc;
	AttrNumber	tenant;
	Oid			tenant_type;
	bool		reads_carriers;
	int			ncolumns;		/* 0 where the type is of no protected table */
	OpenColumn *columns;
} OpenRowSite;

/* A context in UTF-8, in a memory context that lasts */
static char *
keep_context(const char *context, size_t *len, MemoryContext memory)
{
	const char *utf8;

	*len = strlen(context);
	utf8 = utf8_from_server(context, len);
	return MemoryContextStrdup(memory, pnstrdup(utf8, *len));
}

/*
 * Open a sealed value as one of a type.  *isnull where it is unreadable and
 * envelope.unreadable says null.
 */
static Datum
open_value(const ValueLabel *label, Datum sealed, const ValueType *type,
		   bool *isnull)
{
	bytea	   *bytes = DatumGetByteaPP(sealed);
	struct varlena *plaintext;
	SealedKind	kind;
	Datum		result;

	plaintext = keyring_read(label, bytes, &kind);
	if ((Pointer) bytes != DatumGetPointer(sealed))
		pfree(bytes);
	*isnull = plaintext == NULL;
	if (plaintext == NULL)
		return (Datum) 0;
	result = value_from_plaintext(type, kind, plaintext);
	if (result != PointerGetDatum(plaintext))
		pfree(plaintext);
	return result;
}

static OpenSite *
open_site(FunctionCallInfo fcinfo)
{
	OpenSite   *site = fcinfo->flinfo->fn_extra;
	MemoryContext memory = fcinfo->flinfo->fn_mcxt;
	Oid			type;

	if (site)
		return site;
	type = get_fn_expr_rettype(fcinfo->flinfo);
	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("the type of the value is not known")));
	site = MemoryContextAllocZero(memory, sizeof(OpenSite));
	value_type_init(&site->type, type, -1, memory);
	/* Where nothing is to be converted, the argument itself will do. */
	if (GetDatabaseEncoding() != PG_UTF8 && get_fn_expr_arg_stable(fcinfo->flinfo, 2))
		site->context = keep_context(text_to_cstring(PG_GETARG_TEXT_PP(2)),
									 &site->context_len, memory);
	fcinfo->flinfo->fn_extra = site;
	return site;
}

/*
 * open(tenant, sealed, context, type) returns a value of the type of its last
 * argument, which is otherwise not looked at.  Null for a null sealed value.
 */
static Datum
open_for(FunctionCallInfo fcinfo, Oid tenant_type)
{
	OpenSite   *site;
	ValueLabel	label;
	Datum		result;
	bool		isnull;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the tenant and the context must not be null")));
	site = open_site(fcinfo);
	label.tenant = value_tenant(tenant_type, PG_GETARG_DATUM(0));
	if (site->context)
	{
		label.context = site->context;
		label.context_len = site->context_len;
	}
	else
	{
		text	   *context = PG_GETARG_TEXT_PP(2);

		label.context_len = VARSIZE_ANY_EXHDR(context);
		label.context = utf8_from_server(VARDATA_ANY(context), &label.context_len);
	}

	result = open_value(&label, PG_GETARG_DATUM(1), &site->type, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	return result;
}

Datum
envelope_open_for_text(PG_FUNCTION_ARGS)
{
	return open_for(fcinfo, TEXTOID);
}

Datum
envelope_open_for_bigint(PG_FUNCTION_ARGS)
{
	return open_for(fcinfo, INT8OID);
}

Datum
envelope_open_for_uuid(PG_FUNCTION_ARGS)
{
	return open_for(fcinfo, UUIDOID);
}

static void
open_column_init(OpenColumn *column, const ProtectedColumn *from,
				 MemoryContext memory)
{
	column->carrier = from->carrier;
	column->sidecar = from->sidecar;
	column->term = from->term;
	value_type_init(&column->type, from->type, from->typmod, memory);
	column->context = keep_context(from->context, &column->context_len, memory);
}

/* Make a call site of open_row ready for rows of a type. */
static void
open_row_site_init(OpenRowSite *site, Oid rowtype, int32 typmod)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(rowtype, typmod);
	Oid			relid = get_typ_typrelid(rowtype);
	uint64		sequence = protection_sequence();
	Protection *protection = OidIsValid(relid) ? protection_of(relid) : NULL;
	MemoryContext old;

	site->rowtype = InvalidOid;
	MemoryContextReset(site->context);
	old = MemoryContextSwitchTo(site->context);
	site->desc = CreateTupleDescCopy(desc);
	ReleaseTupleDesc(desc);
	site->ncolumns = 0;
	if (protection)
	{
		site->tenant = protection->tenant;
		site->tenant_type = protection->tenant_type;
		site->reads_carriers = protection_reads_carriers(protection);
		site->columns = palloc0(protection->ncolumns * sizeof(OpenColumn));
		for (int i = 0; i < protection->ncolumns; i++)
			open_column_init(&site->columns[i], &protection->columns[i],
							 site->context);
		site->ncolumns = protection->ncolumns;
	}
	MemoryContextSwitchTo(old);
	site->typmod = typmod;
	site->sequence = sequence;
	site->rowtype = rowtype;
}

static OpenRowSite *
open_row_site(FunctionCallInfo fcinfo, HeapTupleHeader row)
{
	OpenRowSite *site = fcinfo->flinfo->fn_extra;
	Oid			rowtype = HeapTupleHeaderGetTypeId(row);
	int32		typmod = HeapTupleHeaderGetTypMod(row);

	if (site == NULL)
	{
		site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(OpenRowSite));
		site->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt,
											  "envelope open_row",
											  ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = site;
	}
	if (site->rowtype != rowtype || site->typmod != typmod ||
		site->sequence != protection_sequence())
		open_row_site_init(site, rowtype, typmod);
	return site;
}

/* Put the opened value of a column where its carrier is. */
static void
open_column(const OpenRowSite *site, const OpenColumn *column,
			ValueLabel *label, Datum *values, bool *nulls)
{
	int			carrier = column->carrier - 1;
	int			sidecar = column->sidecar - 1;

	if (!nulls[sidecar])
	{
		if (nulls[site->tenant - 1])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the tenant and the context must not be null")));
		label->context = column->context;
		label->context_len = column->context_len;
		values[carrier] = open_value(label, values[sidecar], &column->type,
									 &nulls[carrier]);
	}
	else if (!site->reads_carriers)
		nulls[carrier] = true;
	nulls[sidecar] = true;
	if (column->term)
		nulls[column->term - 1] = true;
}

/* Refuse (42804) what is no row: its bytes would be taken for one. */
static void
require_row(FunctionCallInfo fcinfo)
{
	if (!type_is_rowtype(get_fn_expr_argtype(fcinfo->flinfo, 0)))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("a row is expected")));
}

/*
 * open_row(row) returns the row of a protected table with its values in the
 * columns that the application knows; those that hold them sealed are null.  A
 * row of any other type is returned as it is.  Strict.
 */
Datum
envelope_open_row(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row;
	OpenRowSite *site;
	HeapTupleData tuple;
	Datum	   *values;
	bool	   *nulls;
	ValueLabel	label;

	if (fcinfo->flinfo->fn_extra == NULL)
		require_row(fcinfo);
	row = PG_GETARG_HEAPTUPLEHEADER(0);
	site = open_row_site(fcinfo, row);
	if (site->ncolumns == 0)
		PG_RETURN_HEAPTUPLEHEADER(row);

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	values = palloc(site->desc->natts * sizeof(Datum));
	nulls = palloc(site->desc->natts * sizeof(bool));
	heap_deform_tuple(&tuple, site->desc, values, nulls);

	label.tenant = nulls[site->tenant - 1] ? NULL :
		value_tenant(site->tenant_type, values[site->tenant - 1]);
	for (int i = 0; i < site->ncolumns; i++)
		open_column(site, &site->columns[i], &label, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(site->desc, values, nulls)));
}
