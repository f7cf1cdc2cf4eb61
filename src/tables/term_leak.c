/*-------------------------------------------------------------------------
 *
 * term_leak.c
 *	  What the terms of a searchable column give away.
 *
 * A term says nothing of its value, but equal values of a tenant have equal
 * terms.  Where a tenant has few values, or one of them in many rows, whoever
 * sees the terms can guess from how often each occurs what it stands for.
 *
 * A type that has few values at all is refused unless it is asked for.  What the
 * rows are like is looked at when all terms are there, and told.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#include "compat.h"
#include "tables/protect.h"

/* A tenant with fewer rows than this says nothing of the column */
#define LEAK_MIN_ROWS	"100"

/* Fewer values than this are few, if each is in ten rows or more */
#define LEAK_FEW_VALUES	"100"

/* A value in one row of so many is frequent */
#define LEAK_FREQUENT	"20"

#define LEAK_DETAIL \
	"Whoever sees the terms sees which rows have equal values, and can guess from their frequency what they are."

/* Refuse (0A000) to make a column searchable whose type has few values. */
void
term_leak_check(const ProtectPlan *plan, const ProtectColumn *column, Oid type)
{
	Oid			base = getBaseType(type);

	if (base != BOOLOID && !type_is_enum(base))
		return;
	if (plan->forced)
		ereport(WARNING,
				(errmsg("column \"%s\" of table \"%s\" has few values",
						column->carrier, plan->name),
				 errdetail(LEAK_DETAIL)));
	else
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of table \"%s\" cannot be searchable",
						column->carrier, plan->name),
				 errdetail("Its type has few values. " LEAK_DETAIL),
				 errhint("Protect it without making it searchable, and without an index; or give \"force => true\", if you accept that.")));
}

/*
 * Of the tenant whose rows tell most: how many values there are in how many
 * rows, and how frequent one is; NULL where no tenant's tell much.
 */
static char *
describe_values(const ProtectPlan *plan, const ProtectColumn *column)
{
	const char *tenant = quote_identifier(plan->tenant);
	const char *term = quote_identifier(column->term);

	return protect_query(psprintf("SELECT pg_catalog.format('Of one tenant there are %%s values in %%s rows, one of them in %%s.',"
								  " n_values, n_rows, most)"
								  " FROM (SELECT count(*) AS n_values, sum(n) AS n_rows, max(n) AS most"
								  " FROM (SELECT %s, count(*) AS n FROM %s WHERE %s IS NOT NULL GROUP BY %s, %s) v"
								  " GROUP BY %s HAVING sum(n) >= " LEAK_MIN_ROWS ") t"
								  " WHERE n_values < " LEAK_FEW_VALUES " AND n_values * 10 <= n_rows"
								  " OR most * " LEAK_FREQUENT " >= n_rows"
								  " ORDER BY most / n_rows DESC, n_values, n_rows LIMIT 1",
								  tenant, plan->table, term, tenant, term, tenant));
}

/*
 * Warn of new searchable columns whose terms tell much.  Between protect_begin
 * and protect_end; they are all there.
 */
void
term_leak_warn(const ProtectPlan *plan)
{
	ListCell   *cell;

	/* Policies would hide rows, or want what only the application sets. */
	if (check_enable_rls(plan->relid, InvalidOid, true) != RLS_NONE)
		return;
	(void) set_config_option("envelope.stored_form", "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		char	   *values;

		if (!column->is_new || column->term == NULL ||
			(values = describe_values(plan, column)) == NULL)
			continue;
		ereport(WARNING,
				(errmsg("the terms of column \"%s\" of table \"%s\" give values away",
						column->carrier, plan->name),
				 errdetail("%s " LEAK_DETAIL, values),
				 errhint("Make it searchable only if it has to be looked up.")));
	}
}
