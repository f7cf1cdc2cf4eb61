/*-------------------------------------------------------------------------
 *
 * provision.h
 *	  Making tenants and their keys, and bringing keys into memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROVISION_H
#define ENVELOPE_PROVISION_H

#include "kms/kms.h"

/* What to do about tenants that exist */
typedef enum ExistingTenants
{
	EXISTING_REFUSE,			/* 42710 */
	EXISTING_KEEP
} ExistingTenants;

extern int	provision_tenants(char **tenants, int ntenants, const char *kek,
							  ExistingTenants existing, int64 *data_key);
extern int	provision_warm(char **tenants, int ntenants);
extern void provision_check_tenant_id(const char *tenant);
extern void provision_fill_generate(const char *tenant, KeyPurpose purpose,
									KmsRequest *request);

#endif							/* ENVELOPE_PROVISION_H */
