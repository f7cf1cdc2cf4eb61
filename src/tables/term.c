/*-------------------------------------------------------------------------
 *
 * term.c
 *	  The SQL functions by which statements search protected columns.
 *
 * Where a statement asks for a value of a searchable column, the planner adds
 * a comparison of the column's term with the term of that value (search.c).
 * The statement must answer then as it would without: so a tenant that does
 * not exist has no term, and finds nothing, rather than being an error.
 *
 * The functions are LEAKPROOF, so that the comparison may use an index below
 * the conditions of row-level security, on rows that the user may not see.  So
 * no error tells which tenant or value it was about.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/supportnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "errors.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "settings.h"
#include "tables/protection.h"
#include "tables/value.h"

PG_FUNCTION_INFO_V1(envelope_term_for_text);
PG_FUNCTION_INFO_V1(envelope_term_for_bigint);
PG_FUNCTION_INFO_V1(envelope_term_for_uuid);
PG_FUNCTION_INFO_V1(envelope_terms_for_text);
PG_FUNCTION_INFO_V1(envelope_terms_for_bigint);
PG_FUNCTION_INFO_V1(envelope_terms_for_uuid);
PG_FUNCTION_INFO_V1(envelope_terms_of_tenants);
PG_FUNCTION_INFO_V1(envelope_recheck);
PG_FUNCTION_INFO_V1(envelope_recheck_support);

/* What a call site keeps */
typedef struct TermSite
{
	ValueType	type;
	int16		typlen;
	bool		typbyval;
	char		typalign;
} TermSite;

static TermSite *
term_site(FunctionCallInfo fcinfo, Oid type)
{
	TermSite   *site = fcinfo->flinfo->fn_extra;

	if (site && site->type.type == type)
		return site;
	site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(TermSite));
	value_type_init(&site->type, type, -1, fcinfo->flinfo->fn_mcxt);
	get_typlenbyvalalign(type, &site->typlen, &site->typbyval, &site->typalign);
	fcinfo->flinfo->fn_extra = site;
	return site;
}

/* What may be said of an error; the rest could tell what was searched for. */
static const char *
harmless_message(int sqlerrcode)
{
	switch (sqlerrcode)
	{
		case ERRCODE_ENVELOPE_DENIED:
			return "the KMS denied a key that a search needs";
		case ERRCODE_ENVELOPE_UNREACHABLE:
			return "a key that a search needs could not be had in time";
		case ERRCODE_ENVELOPE_DESTROYED:
			return "a key that a search needs was destroyed";
		case ERRCODE_ENVELOPE_SUSPENDED:
			return "a search is for a tenant that is suspended";
		case ERRCODE_ENVELOPE_OTHER_TENANT:
			return "a search is for a tenant that the session is not bound to";
		case ERRCODE_ENVELOPE_NOT_RUNNING:
			return "a search needs the module to be preloaded and its worker to run";
		default:
			return "a value cannot be searched for";
	}
}

/* Would reading the values of this tenant give null? */
static bool
reads_as_null(int sqlerrcode)
{
	return envelope_unreadable == UNREADABLE_NULL &&
		(sqlerrcode == ERRCODE_ENVELOPE_DENIED ||
		 sqlerrcode == ERRCODE_ENVELOPE_DESTROYED ||
		 sqlerrcode == ERRCODE_ENVELOPE_SUSPENDED);
}

/*
 * The term of a value; NULL where the tenant does not exist, or its values are
 * read as null.  Throws what keyring_term does, without its words.
 */
static bytea *
term_of(const ValueLabel *label, const ValueType *type, Datum value)
{
	MemoryContext memory = CurrentMemoryContext;
	uint8		term[TERM_MAX_BYTES];
	const char *text;
	size_t		len;
	bytea	   *volatile result = NULL;
	int			failure = 0;

	PG_TRY();
	{
		text = value_to_term_text(type, value, &len);

		keyring_term(label, type->kind, text, len, term);
		result = palloc(VARHDRSZ + TERM_BYTES);
		SET_VARSIZE(result, VARHDRSZ + TERM_BYTES);
		memcpy(VARDATA(result), term, TERM_BYTES);
	}
	PG_CATCH();
	{
		failure = geterrcode();

		/* What is not ours has nothing to do with the values. */
		if (failure == ERRCODE_QUERY_CANCELED ||
			ERRCODE_TO_CATEGORY(failure) == ERRCODE_TO_CATEGORY(ERRCODE_OUT_OF_MEMORY) ||
			ERRCODE_TO_CATEGORY(failure) == ERRCODE_TO_CATEGORY(ERRCODE_ADMIN_SHUTDOWN))
			PG_RE_THROW();
		MemoryContextSwitchTo(memory);
		FlushErrorState();
		if (failure != ERRCODE_ENVELOPE_UNKNOWN_TENANT && !reads_as_null(failure))
			ereport(ERROR,
					(errcode(failure),
					 errmsg("%s", harmless_message(failure))));
	}
	PG_END_TRY();
	return result;
}

/* A tenant, and the context of a call, argument 2 */
static void
term_label(FunctionCallInfo fcinfo, Oid tenant_type, Datum tenant, ValueLabel *label)
{
	char	   *context = text_to_cstring(PG_GETARG_TEXT_PP(2));

	label->tenant = value_tenant(tenant_type, tenant);
	label->context_len = strlen(context);
	label->context = utf8_from_server(context, &label->context_len);
}

/* term(tenant, value, context); strict */
static Datum
term_for(FunctionCallInfo fcinfo, Oid tenant_type)
{
	TermSite   *site = term_site(fcinfo, get_fn_expr_argtype(fcinfo->flinfo, 1));
	ValueLabel	label;
	bytea	   *term;

	term_label(fcinfo, tenant_type, PG_GETARG_DATUM(0), &label);
	term = term_of(&label, &site->type, PG_GETARG_DATUM(1));
	if (term == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(term);
}

/* terms(tenant, values, context): of each value, null for null; strict */
static Datum
terms_for(FunctionCallInfo fcinfo, Oid tenant_type)
{
	ArrayType  *values = PG_GETARG_ARRAYTYPE_P(1);
	TermSite   *site = term_site(fcinfo, ARR_ELEMTYPE(values));
	ValueLabel	label;
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;

	term_label(fcinfo, tenant_type, PG_GETARG_DATUM(0), &label);
	deconstruct_array(values, ARR_ELEMTYPE(values), site->typlen, site->typbyval,
					  site->typalign, &elements, &nulls, &nelements);
	for (int i = 0; i < nelements; i++)
	{
		bytea	   *term;

		if (nulls[i])
			continue;
		term = term_of(&label, &site->type, elements[i]);
		nulls[i] = term == NULL;
		elements[i] = PointerGetDatum(term);
	}
	PG_RETURN_ARRAYTYPE_P(construct_md_array(elements, nulls, ARR_NDIM(values),
											 ARR_DIMS(values), ARR_LBOUND(values),
											 BYTEAOID, -1, false, TYPALIGN_INT));
}

/*
 * terms(tenants, values, context): an array of the terms of each value for each
 * tenant; none for null.  Strict.
 */
Datum
envelope_terms_of_tenants(PG_FUNCTION_ARGS)
{
	ArrayType  *tenants = PG_GETARG_ARRAYTYPE_P(0);
	ArrayType  *values = PG_GETARG_ARRAYTYPE_P(1);
	TermSite   *site = term_site(fcinfo, ARR_ELEMTYPE(values));
	ArrayBuildState *terms = initArrayResult(BYTEAOID, CurrentMemoryContext, false);
	ArrayIterator each_tenant = array_create_iterator(tenants, 0, NULL);
	Datum		tenant;
	Datum		value;
	bool		isnull;

	while (array_iterate(each_tenant, &tenant, &isnull))
	{
		ArrayIterator each_value;
		ValueLabel	label;

		if (isnull)
			continue;
		term_label(fcinfo, ARR_ELEMTYPE(tenants), tenant, &label);
		each_value = array_create_iterator(values, 0, NULL);
		while (array_iterate(each_value, &value, &isnull))
		{
			bytea	   *term = isnull ? NULL : term_of(&label, &site->type, value);

			if (term)
				terms = accumArrayResult(terms, PointerGetDatum(term), false,
										 BYTEAOID, CurrentMemoryContext);
		}
		array_free_iterator(each_value);
	}
	array_free_iterator(each_tenant);
	PG_RETURN_DATUM(makeArrayResult(terms, CurrentMemoryContext));
}

Datum
envelope_term_for_text(PG_FUNCTION_ARGS)
{
	return term_for(fcinfo, TEXTOID);
}

Datum
envelope_term_for_bigint(PG_FUNCTION_ARGS)
{
	return term_for(fcinfo, INT8OID);
}

Datum
envelope_term_for_uuid(PG_FUNCTION_ARGS)
{
	return term_for(fcinfo, UUIDOID);
}

Datum
envelope_terms_for_text(PG_FUNCTION_ARGS)
{
	return terms_for(fcinfo, TEXTOID);
}

Datum
envelope_terms_for_bigint(PG_FUNCTION_ARGS)
{
	return terms_for(fcinfo, INT8OID);
}

Datum
envelope_terms_for_uuid(PG_FUNCTION_ARGS)
{
	return terms_for(fcinfo, UUIDOID);
}

/* recheck(clause) returns what it is given; strict */
Datum
envelope_recheck(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(PG_GETARG_BOOL(0));
}

/*
 * Tell the planner that recheck removes no rows: what it is given was counted
 * with the clause that it follows from.
 */
Datum
envelope_recheck_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}
