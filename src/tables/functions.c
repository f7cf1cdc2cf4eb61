/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  The SQL functions that planned statements on protected tables call, and
 *	  calls of them.
 *
 * They are found by name and signature in the extension's own schema, and kept
 * until some function of the database changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "tables/functions.h"

/* The types that tenant ids are passed as */
typedef enum TenantArgument
{
	TENANT_TEXT,
	TENANT_BIGINT,
	TENANT_UUID
} TenantArgument;

#define TENANT_ARGUMENTS 3

static const Oid tenant_argument_types[] = {TEXTOID, INT8OID, UUIDOID};
static const Oid tenant_array_types[] = {TEXTARRAYOID, INT8ARRAYOID, UUIDARRAYOID};

/* InvalidOid where not known */
static Oid	tenant_functions[TENANT_FUNCTIONS][TENANT_ARGUMENTS];
static Oid	open_row_function;
static Oid	recheck_function;

static void
functions_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	memset(tenant_functions, 0, sizeof(tenant_functions));
	open_row_function = InvalidOid;
	recheck_function = InvalidOid;
}

/* Called from _PG_init. */
void
functions_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, functions_changed, (Datum) 0);
}

static Oid
lookup(Oid *known, const char *name, int nargs, const Oid *types)
{
	if (!OidIsValid(*known))
	{
		/*
		 * Not LookupFuncName, which asks for a privilege on the schema that
		 * who may use a protected table need not have.
		 */
		Oid			found = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
											CStringGetDatum(name),
											PointerGetDatum(buildoidvector(types, nargs)),
											ObjectIdGetDatum(get_namespace_oid(ENVELOPE_SCHEMA, false)));

		if (!OidIsValid(found))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("function %s.%s does not exist", ENVELOPE_SCHEMA, name)));
		*known = found;
	}
	return *known;
}

/* The function whose privilege is that of opening */
static Oid
open_row_oid(void)
{
	Oid			types[] = {ANYELEMENTOID};

	return lookup(&open_row_function, "open_row", lengthof(types), types);
}

/* May the current user open what is sealed? */
bool
functions_may_open(void)
{
	return object_aclcheck(ProcedureRelationId, open_row_oid(), GetUserId(),
						   ACL_EXECUTE) == ACLCHECK_OK;
}

/* Throw (42501) unless they may. */
void
functions_require_open(void)
{
	if (!functions_may_open())
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, "open_row");
}

static Oid
tenant_function(TenantFunction function, TenantArgument argument)
{
	Oid		   *known = &tenant_functions[function][argument];
	Oid			tenant = tenant_argument_types[argument];

	switch (function)
	{
		case FUNCTION_OPEN:
			{
				Oid			types[] = {tenant, BYTEAOID, TEXTOID, ANYELEMENTOID};

				return lookup(known, "open", lengthof(types), types);
			}
		case FUNCTION_TERM:
			{
				Oid			types[] = {tenant, ANYELEMENTOID, TEXTOID};

				return lookup(known, "term", lengthof(types), types);
			}
		case FUNCTION_TERMS:
			{
				Oid			types[] = {tenant, ANYARRAYOID, TEXTOID};

				return lookup(known, "terms", lengthof(types), types);
			}
		case FUNCTION_TERMS_OF_TENANTS:
			{
				Oid			types[] = {tenant_array_types[argument], ANYARRAYOID, TEXTOID};

				return lookup(known, "terms", lengthof(types), types);
			}
	}
	pg_unreachable();
}

/* As what tenant ids of a type are passed */
static TenantArgument
argument_of_type(Oid type)
{
	switch (getBaseType(type))
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return TENANT_BIGINT;
		case UUIDOID:
			return TENANT_UUID;
		default:
			return TENANT_TEXT;
	}
}

static Expr *
coerced(Expr *value, Oid type)
{
	Node	   *result = coerce_to_target_type(NULL, (Node *) value,
											   exprType((Node *) value), type, -1,
											   COERCION_EXPLICIT,
											   COERCE_IMPLICIT_CAST, -1);

	if (result == NULL)
		elog(ERROR, "a tenant id is not of a type that tenant ids have");
	return (Expr *) result;
}

/*
 * Make a tenant id one of the types that the functions take.
 */
static Expr *
tenant_argument(Expr *tenant, TenantArgument *argument)
{
	*argument = argument_of_type(exprType((Node *) tenant));
	return coerced(tenant, tenant_argument_types[*argument]);
}

/* The same of an array of tenant ids */
static Expr *
tenants_argument(Expr *tenants, TenantArgument *argument)
{
	*argument = argument_of_type(get_base_element_type(exprType((Node *) tenants)));
	return coerced(tenants, tenant_array_types[*argument]);
}

static Expr *
text_constant(const char *value)
{
	return (Expr *) makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
							  CStringGetTextDatum(value), false, false);
}

/*
 * A call that opens a sidecar as a value of the carrier's type.
 */
Expr *
functions_call_open(Expr *tenant, Expr *sealed, const char *context,
					Oid type, int32 typmod, Oid collation)
{
	TenantArgument argument;
	List	   *args;
	Expr	   *call;

	tenant = tenant_argument(tenant, &argument);
	args = list_make4(tenant, sealed, text_constant(context),
					  makeNullConst(type, typmod, collation));
	call = (Expr *) makeFuncExpr(tenant_function(FUNCTION_OPEN, argument),
								 type, args, collation, InvalidOid,
								 COERCE_EXPLICIT_CALL);
	/* The result of a function has no typmod; clients are told the column's. */
	if (typmod >= 0)
		call = (Expr *) makeRelabelType(call, type, typmod, collation,
										COERCE_IMPLICIT_CAST);
	return call;
}

/*
 * A call that opens the protected columns of a row of a table's type.
 */
Expr *
functions_call_open_row(Expr *row, Oid type)
{
	return (Expr *) makeFuncExpr(open_row_oid(), type, list_make1(row), InvalidOid, InvalidOid,
								 COERCE_EXPLICIT_CALL);
}

/*
 * A call that gives the term of a value; or (FUNCTION_TERMS) the terms of the
 * values of an array; or (FUNCTION_TERMS_OF_TENANTS) those for each of several
 * tenants, which are an array then.
 */
Expr *
functions_call_term(TenantFunction function, Expr *tenant, Expr *value,
					const char *context)
{
	TenantArgument argument;
	Oid			collation = exprCollation((Node *) value);

	tenant = function == FUNCTION_TERMS_OF_TENANTS ?
		tenants_argument(tenant, &argument) : tenant_argument(tenant, &argument);
	return (Expr *) makeFuncExpr(tenant_function(function, argument),
								 function == FUNCTION_TERM ? BYTEAOID : BYTEAARRAYOID,
								 list_make3(tenant, value, text_constant(context)),
								 InvalidOid, collation, COERCE_EXPLICIT_CALL);
}

/*
 * Mark a clause as what stays true of the rows that another clause finds, so
 * that it is not counted when their number is estimated.
 */
Expr *
functions_call_recheck(Expr *clause)
{
	Oid			types[] = {BOOLOID};

	return (Expr *) makeFuncExpr(lookup(&recheck_function, "recheck",
										lengthof(types), types),
								 BOOLOID, list_make1(clause), InvalidOid,
								 InvalidOid, COERCE_EXPLICIT_CALL);
}
