/*-------------------------------------------------------------------------
 *
 * args.h
 *	  Arguments that many SQL functions have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ARGS_H
#define ENVELOPE_ARGS_H

#include "fmgr.h"

#include "keys/keyring.h"

/* The tenant and context that a function was called with */
typedef struct LabelArgs
{
	ValueLabel	label;
	char		buffer[TENANT_MAX_BYTES + 1];
} LabelArgs;

/* Takes a tenant id of one SQL type */
typedef void (*tenant_arg_fn) (LabelArgs *args, Datum tenant);

extern void args_tenant_text(LabelArgs *args, Datum tenant);
extern void args_tenant_bigint(LabelArgs *args, Datum tenant);
extern void args_tenant_uuid(LabelArgs *args, Datum tenant);
extern void args_label(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant,
					   LabelArgs *args);
extern char *args_text(FunctionCallInfo fcinfo, int argument, const char *name);
extern char *args_text_or_null(FunctionCallInfo fcinfo, int argument);
extern char **args_text_array(FunctionCallInfo fcinfo, int argument,
							  const char *name, int *nelements);

#endif							/* ENVELOPE_ARGS_H */
