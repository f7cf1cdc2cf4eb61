/*-------------------------------------------------------------------------
 *
 * protected.c
 *	  What the views show of protected tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "compat.h"
#include "tables/protection.h"

PG_FUNCTION_INFO_V1(envelope_list_protected_columns);

static Datum
name_of(Relation rel, AttrNumber attnum)
{
	return NameGetDatum(&TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname);
}

static void
put_columns(ReturnSetInfo *result, Relation rel, const Protection *protection,
			bool old_files)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *at = &protection->columns[i];
		Datum		values[8] = {0};
		bool		nulls[8] = {0};

		values[0] = ObjectIdGetDatum(protection->relid);
		values[1] = name_of(rel, at->carrier);
		values[2] = name_of(rel, protection->tenant);
		values[3] = name_of(rel, at->sidecar);
		if (at->term)
			values[4] = name_of(rel, at->term);
		else
			nulls[4] = true;
		values[5] = CStringGetTextDatum(at->context);
		values[6] = BoolGetDatum(protection->live);
		values[7] = BoolGetDatum(old_files);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/* Has the table, or a partition, the file in which it was switched live? */
static bool
has_old_files(Oid relid)
{
	ListCell   *cell;
	bool		result = false;

	foreach(cell, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Protection *protection = protection_of(lfirst_oid(cell));

		result |= protection != NULL && protection->old_file;
	}
	return result;
}

/* envelope.list_protected_columns(): of tables, and not again of their partitions */
Datum
envelope_list_protected_columns(PG_FUNCTION_ARGS)
{
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, protected_relations())
	{
		Relation	rel = try_relation_open(lfirst_oid(cell), AccessShareLock);
		Protection *protection;
		const char *misfit;

		if (rel == NULL)
			continue;
		protection = rel->rd_rel->relispartition ? NULL : protection_try_read(rel, &misfit);
		if (protection)
			put_columns((ReturnSetInfo *) fcinfo->resultinfo, rel, protection,
						has_old_files(RelationGetRelid(rel)));
		relation_close(rel, AccessShareLock);
	}
	return (Datum) 0;
}
