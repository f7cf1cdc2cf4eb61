/*-------------------------------------------------------------------------
 *
 * verify.h
 *	  Counting, and opening, every value of a tenant.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_VERIFY_H
#define ENVELOPE_VERIFY_H

#include "keys/catalog.h"

/* What was found in one column under one key */
typedef struct VerifyCount
{
	int64		key_id;			/* NO_KEY: no sealed value; the hash key */
	int64		values;
	int64		failures;		/* values that do not open */
	int			sqlstate;		/* of the first failure */
} VerifyCount;

/* Called for each column and key; its arguments are good until it returns */
typedef void (*verify_fn) (const char *table, const char *column,
						   const VerifyCount *count, void *arg);

extern void verify_tenant(const char *tenant, bool open, verify_fn found, void *arg);

#endif							/* ENVELOPE_VERIFY_H */
