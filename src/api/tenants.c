/*-------------------------------------------------------------------------
 *
 * tenants.c
 *	  The SQL functions that make, suspend, resume, warm and evict tenants.
 *
 * They take tenant ids of type text; those for bigint and uuid are SQL
 * functions that call these.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "errors.h"
#include "keys/audit.h"
#include "keys/cache.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/provision.h"
#include "keys/store.h"
#include "keys/tenant.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(envelope_create_tenant);
PG_FUNCTION_INFO_V1(envelope_create_tenants);
PG_FUNCTION_INFO_V1(envelope_suspend_tenant);
PG_FUNCTION_INFO_V1(envelope_resume_tenant);
PG_FUNCTION_INFO_V1(envelope_warm);
PG_FUNCTION_INFO_V1(envelope_evict);
PG_FUNCTION_INFO_V1(envelope_evict_all);

/* envelope_create_tenant(tenant text, kek text) returns the data key's id. */
Datum
envelope_create_tenant(PG_FUNCTION_ARGS)
{
	char	   *tenant = args_text(fcinfo, 0, "tenant");
	char	   *kek = args_text_or_null(fcinfo, 1);
	int64		data_key = NO_KEY;

	provision_check_tenant_id(tenant);
	(void) provision_tenants(&tenant, 1, kek, EXISTING_REFUSE, &data_key);
	PG_RETURN_INT64(data_key);
}

/* envelope_create_tenants(tenants text[], kek text) returns how many. */
Datum
envelope_create_tenants(PG_FUNCTION_ARGS)
{
	int			ntenants;
	char	  **tenants = args_text_array(fcinfo, 0, "tenant", &ntenants);
	char	   *kek = args_text_or_null(fcinfo, 1);

	if (tenants == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the array of tenants must not be null")));
	for (int i = 0; i < ntenants; i++)
		provision_check_tenant_id(tenants[i]);
	PG_RETURN_INT32(provision_tenants(tenants, ntenants, kek, EXISTING_REFUSE, NULL));
}

/*
 * Move a tenant between active and suspended; to be there already is fine.
 */
static void
move_tenant(const char *tenant, const char *from, const char *to,
			const char *event)
{
	StoreParam	params[] = {store_text(tenant), store_text(from), store_text(to)};
	OwnerScope	scope;
	TenantState state;

	(void) tenant_state_of(tenant); /* throws where there is none */
	store_refuse_serializable("suspend or resume a tenant");
	store_begin(&scope);
	if (store_execute("UPDATE envelope.tenants"
					  " SET state = $3, state_changed_at = now()"
					  " WHERE tenant_id = $1"
					  " AND state = $2",
					  lengthof(params), params) == 0)
	{
		state = tenant_state_of_living(tenant);
		if (state != tenant_state_parse(to))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("tenant \"%s\" is scheduled to be destroyed", tenant)));
	}
	else
		audit_record(event, tenant, NULL, NO_KEY, NULL);
	store_end(&scope);
}

/* envelope_suspend_tenant(tenant text) */
Datum
envelope_suspend_tenant(PG_FUNCTION_ARGS)
{
	move_tenant(args_text(fcinfo, 0, "tenant"), "active", "suspended",
				"tenant.suspend");
	PG_RETURN_VOID();
}

/* envelope_resume_tenant(tenant text) */
Datum
envelope_resume_tenant(PG_FUNCTION_ARGS)
{
	move_tenant(args_text(fcinfo, 0, "tenant"), "suspended", "active",
				"tenant.resume");
	PG_RETURN_VOID();
}

/*
 * envelope_warm(tenants text[]) returns how many keys were unwrapped.  VE001
 * where one of the tenants does not exist; those that are suspended are left
 * out.
 */
Datum
envelope_warm(PG_FUNCTION_ARGS)
{
	int			ntenants;
	char	  **tenants = args_text_array(fcinfo, 0, "tenant", &ntenants);

	shmem_require();
	for (int i = 0; i < ntenants; i++)
		(void) tenant_state_of(tenants[i]);
	PG_RETURN_INT32(provision_warm(tenants, ntenants));
}

/* envelope_evict(tenant text) returns how many keys left memory here. */
Datum
envelope_evict(PG_FUNCTION_ARGS)
{
	char	   *tenant = args_text(fcinfo, 0, "tenant");
	size_t		len = strlen(tenant);

	shmem_require();
	(void) tenant_state_of(tenant);
	audit_log_only("tenant.evict", tenant, NULL);
	PG_RETURN_INT32(dek_cache_evict_tenant(MyDatabaseId, utf8_from_server(tenant, &len)));
}

/* envelope_evict_all() returns the same for all tenants of this database. */
Datum
envelope_evict_all(PG_FUNCTION_ARGS)
{
	shmem_require();
	audit_log_only("tenant.evict_all", NULL, NULL);
	PG_RETURN_INT32(dek_cache_evict_database(MyDatabaseId));
}
