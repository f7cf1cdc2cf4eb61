/*-------------------------------------------------------------------------
 *
 * tenant.h
 *	  What state a tenant is in, and what it forbids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_TENANT_H
#define ENVELOPE_TENANT_H

#include "compat.h"
#include "keys/catalog.h"

/* Of tenants in UTF-8 */
extern const char *tenant_text(const char *tenant);
pg_noreturn extern void tenant_report_unknown(const char *tenant);
pg_noreturn extern void tenant_report_key_destroyed(const char *tenant);
extern void tenant_check_usable(const char *tenant, TenantState state);

/* Of tenants in the server's encoding */
extern TenantState tenant_state_of(const char *tenant);
extern TenantState tenant_state_of_living(const char *tenant);

#endif							/* ENVELOPE_TENANT_H */
