/*-------------------------------------------------------------------------
 *
 * tenant.c
 *	  What state a tenant is in, and what it forbids.
 *
 * Values are sealed and opened for tenants that are active (keyring.c); what is
 * done to a tenant's keys depends on what is done.  All say the same, in the same
 * words and SQLSTATEs, of a tenant that does not exist (VE001), was destroyed
 * (VE005) or is suspended (VE006).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "keys/encoding.h"
#include "keys/tenant.h"

/* A tenant, for a message in the server's encoding */
const char *
tenant_text(const char *tenant)
{
	size_t		len = strlen(tenant);

	return utf8_to_server(tenant, &len);
}

void
tenant_report_unknown(const char *tenant)
{
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_UNKNOWN_TENANT),
			 strlen(tenant) > TENANT_MAX_BYTES ?
			 errmsg("a tenant id of %zu bytes does not exist", strlen(tenant)) :
			 errmsg("tenant \"%s\" does not exist", tenant_text(tenant)),
			 errhint("Tenants are made by envelope_create_tenant.")));
}

/* A key of the tenant was, maybe with all others. */
void
tenant_report_key_destroyed(const char *tenant)
{
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_DESTROYED),
			 errmsg("the key of tenant \"%s\" was destroyed", tenant_text(tenant)),
			 errdetail("Values sealed under it cannot be opened any more.")));
}

/* Throw (VE005, VE006) unless values of a tenant in this state can be used. */
void
tenant_check_usable(const char *tenant, TenantState state)
{
	switch (state)
	{
		case TENANT_ACTIVE:
			return;
		case TENANT_SUSPENDED:
			ereport(ERROR,
					(errcode(ERRCODE_ENVELOPE_SUSPENDED),
					 errmsg("tenant \"%s\" is suspended", tenant_text(tenant))));
			break;
		case TENANT_SCHEDULED:
			ereport(ERROR,
					(errcode(ERRCODE_ENVELOPE_SUSPENDED),
					 errmsg("tenant \"%s\" is suspended", tenant_text(tenant)),
					 errdetail("It is scheduled to be destroyed.")));
			break;
		case TENANT_DESTROYED:
			tenant_report_key_destroyed(tenant);
	}
}

/* The state of a tenant; VE001 where there is none. */
TenantState
tenant_state_of(const char *tenant)
{
	size_t		len = strlen(tenant);
	const char *utf8 = utf8_from_server(tenant, &len);
	TenantRow	row;

	if (!catalog_read_tenant(utf8, &row))
		tenant_report_unknown(utf8);
	return row.state;
}

/* The same; VE005 where it was destroyed. */
TenantState
tenant_state_of_living(const char *tenant)
{
	TenantState state = tenant_state_of(tenant);

	if (state == TENANT_DESTROYED)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_DESTROYED),
				 errmsg("tenant \"%s\" was destroyed", tenant)));
	return state;
}
