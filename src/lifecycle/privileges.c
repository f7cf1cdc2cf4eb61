/*-------------------------------------------------------------------------
 *
 * privileges.c
 *	  envelope_grant and envelope_revoke.
 *
 * A level is a list of ordinary privileges on the extension's objects, which
 * the SQL function envelope.privileges() defines.  So dumps carry them, and
 * whoever wants something finer uses GRANT.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "keys/store.h"

PG_FUNCTION_INFO_V1(envelope_grant);
PG_FUNCTION_INFO_V1(envelope_revoke);

/* Grant or revoke what a level consists of. */
static void
change_privileges(FunctionCallInfo fcinfo, const char *query,
				  const char *verb, const char *direction)
{
	char	   *role = NameStr(*PG_GETARG_NAME(0));
	char	   *level = text_to_cstring(PG_GETARG_TEXT_PP(1));
	StoreParam	params[] = {store_text(level), store_text(role)};
	OwnerScope	scope;
	SPITupleTable *table;
	uint64		nobjects;

	(void) get_role_oid(role, false);
	store_lock_privileges();
	store_begin(&scope);
	nobjects = store_execute(query, lengthof(params), params);
	table = SPI_tuptable;
	if (nobjects == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no level \"%s\"", level),
				 errhint("The levels are use, operate and admin.")));

	for (uint64 i = 0; i < nobjects; i++)
	{
		char	   *statement = psprintf("%s %s ON %s %s %s", verb,
										 SPI_getvalue(table->vals[i], table->tupdesc, 1),
										 SPI_getvalue(table->vals[i], table->tupdesc, 2),
										 direction, quote_identifier(role));

		(void) store_execute(statement, 0, NULL);
	}
	store_end(&scope);
}

/* envelope_grant(role name, level text); strict */
Datum
envelope_grant(PG_FUNCTION_ARGS)
{
	change_privileges(fcinfo,
					  "SELECT privileges, object FROM envelope.privileges()"
					  " WHERE level = $1 AND $2 IS NOT NULL",
					  "GRANT", "TO");
	PG_RETURN_VOID();
}

/* envelope_revoke(role name, level text); strict */
Datum
envelope_revoke(PG_FUNCTION_ARGS)
{
	/* What another level gives too stays with those who have that level. */
	change_privileges(fcinfo,
					  "WITH all_levels AS MATERIALIZED (SELECT * FROM envelope.privileges())"
					  " SELECT p.privileges, p.object FROM all_levels p"
					  " WHERE p.level = $1 AND NOT EXISTS ("
					  "SELECT FROM all_levels shared"
					  " JOIN all_levels other ON other.level = shared.level"
					  " WHERE shared.object = p.object AND shared.level <> $1"
					  " AND other.object LIKE 'FUNCTION %'"
					  " AND has_function_privilege($2, substr(other.object, 10), 'EXECUTE'))",
					  "REVOKE", "FROM");
	PG_RETURN_VOID();
}
