/*-------------------------------------------------------------------------
 *
 * rotation.h
 *	  New data keys for tenants, and what was sealed under the old ones.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ROTATION_H
#define ENVELOPE_ROTATION_H

#include "lifecycle/sweep.h"

/* What to do about a tenant whose key cannot be made, or is worked on */
typedef enum RotationTrouble
{
	TROUBLE_THROW,
	TROUBLE_WARN				/* leave the tenant out */
} RotationTrouble;

/* How fast to go */
typedef struct RotationPace
{
	int			batch_size;		/* rows */
	int64		pause_ms;		/* after each batch */
} RotationPace;

extern int64 rotation_in_transaction(const char *tenant, bool reencrypt);
extern int	rotation_of_tenants(char **tenants, int ntenants,
								const RotationPace *pace,
								RotationTrouble trouble);
extern void rotation_check_tenant(const char *tenant);

#endif							/* ENVELOPE_ROTATION_H */
