/*-------------------------------------------------------------------------
 *
 * functions.h
 *	  The SQL functions that planned statements on protected tables call.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_FUNCTIONS_H
#define ENVELOPE_FUNCTIONS_H

#include "nodes/primnodes.h"

/* Functions that exist once for each type of tenant ids */
typedef enum TenantFunction
{
	FUNCTION_OPEN,				/* the value of a sidecar */
	FUNCTION_TERM,				/* the term of a value */
	FUNCTION_TERMS,				/* the terms of the values of an array */
	FUNCTION_TERMS_OF_TENANTS	/* the same, for each tenant of an array */
} TenantFunction;

#define TENANT_FUNCTIONS 4

extern void functions_init(void);
extern bool functions_may_open(void);
extern void functions_require_open(void);

extern Expr *functions_call_open(Expr *tenant, Expr *sealed,
								 const char *context,
								 Oid type, int32 typmod, Oid collation);
extern Expr *functions_call_open_row(Expr *row, Oid type);
extern Expr *functions_call_term(TenantFunction function, Expr *tenant,
								 Expr *value, const char *context);
extern Expr *functions_call_recheck(Expr *clause);

#endif							/* ENVELOPE_FUNCTIONS_H */
