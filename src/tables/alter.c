/*-------------------------------------------------------------------------
 *
 * alter.c
 *	  What envelope_protect changes about a table's columns and constraints.
 *
 * A carrier is NULL on disk, so its constraints go where they can be kept:
 *
 *	- NOT NULL goes to the sidecar; the trigger raises it for the carrier.  Since
 *	  PostgreSQL 18 it is a constraint, and stays the same: with its name, comment
 *	  and validity, and what a partition has of it from the table.
 *	- A CHECK stays where it is, with its name, comment and dependencies, and
 *	  becomes (expression OR true), which holds for every row and costs nothing.
 *	  The trigger evaluates the expression over opened values (seal_check.c).
 *
 * All of it is undone the same way.  What no statement says of them is changed in
 * the catalogs.  Statements are run as the table's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/seal.h"

/* The schema, quoted, of the functions that applications call */
static char *
extension_schema(void)
{
	return protect_query(pstrdup("SELECT pg_catalog.quote_ident(n.nspname)"
								 " FROM pg_catalog.pg_extension e"
								 " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
								 " WHERE e.extname = 'envelope'"));
}

/* Add sidecars and terms. */
void
alter_add_columns(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		const char *sidecar = quote_identifier(column->sidecar);

		if (!column->is_new)
			continue;
		/* What is sealed cannot be compressed. */
		protect_execute(psprintf("ALTER TABLE %s ADD COLUMN %s bytea,"
								 " ALTER COLUMN %s SET STORAGE EXTERNAL",
								 plan->table, sidecar, sidecar));
		if (column->term)
			protect_execute(psprintf("ALTER TABLE %s ADD COLUMN %s bytea",
									 plan->table, quote_identifier(column->term)));
	}
}

/* Drop them. */
void
alter_drop_columns(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (!column->is_new)
			continue;
		protect_execute(psprintf("ALTER TABLE %s DROP COLUMN %s", plan->table,
								 quote_identifier(column->sidecar)));
		if (column->term)
			protect_execute(psprintf("ALTER TABLE %s DROP COLUMN %s", plan->table,
									 quote_identifier(column->term)));
	}
}

/* Is a column of a table NOT NULL? */
bool
alter_is_not_null(Oid relid, const char *column)
{
	HeapTuple	tuple = SearchSysCacheAttName(relid, column);
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for column \"%s\" of relation %u", column, relid);
	result = ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;
	ReleaseSysCache(tuple);
	return result;
}

/* Note in the catalogs whether a column of a table is NOT NULL. */
static void
mark_not_null(Oid relid, AttrNumber attnum, bool not_null)
{
	Relation	catalog = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopyAttNum(relid, attnum);

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for attribute %d of relation %u", attnum, relid);
	((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull = not_null;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	table_close(catalog, RowExclusiveLock);
}

/* A copy of a column's NOT NULL constraint; NULL where it has none */
static HeapTuple
not_null_constraint(Relation catalog, Oid relid, AttrNumber attnum)
{
	HeapTuple	result = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (result == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		conkey;

		if (((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_NOTNULL)
			continue;
		conkey = heap_getattr(tuple, Anum_pg_constraint_conkey,
							  RelationGetDescr(catalog), &isnull);
		if (!isnull && *(int16 *) ARR_DATA_PTR(DatumGetArrayTypeP(conkey)) == attnum)
			result = heap_copytuple(tuple);
	}
	systable_endscan(scan);
	return result;
}

/*
 * Make a column's NOT NULL constraint another's, as one that rows may violate
 * which are there (not proven), or with the validity that it has.  False where
 * there is none, as before PostgreSQL 18.
 */
static bool
move_not_null_constraint(Oid relid, AttrNumber from, AttrNumber to, bool proven)
{
	Relation	catalog = table_open(ConstraintRelationId, RowExclusiveLock);
	HeapTuple	tuple = not_null_constraint(catalog, relid, from);
	Datum		key = Int16GetDatum(to);
	Datum		values[Natts_pg_constraint] = {0};
	bool		nulls[Natts_pg_constraint] = {0};
	bool		replaces[Natts_pg_constraint] = {0};
	ObjectAddress constraint;
	ObjectAddress column;

	if (tuple == NULL)
	{
		table_close(catalog, RowExclusiveLock);
		return false;
	}
	values[Anum_pg_constraint_conkey - 1] =
		PointerGetDatum(construct_array(&key, 1, INT2OID, sizeof(int16), true,
										TYPALIGN_SHORT));
	replaces[Anum_pg_constraint_conkey - 1] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(catalog), values, nulls, replaces);
	if (!proven)
		((Form_pg_constraint) GETSTRUCT(tuple))->convalidated = false;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);

	/* It goes with the column that it is on. */
	ObjectAddressSet(constraint, ConstraintRelationId,
					 ((Form_pg_constraint) GETSTRUCT(tuple))->oid);
	ObjectAddressSubSet(column, RelationRelationId, relid, to);
	deleteDependencyRecordsForSpecific(ConstraintRelationId, constraint.objectId,
									   DEPENDENCY_AUTO, RelationRelationId, relid);
	recordDependencyOn(&constraint, &column, DEPENDENCY_AUTO);
	table_close(catalog, RowExclusiveLock);
	return true;
}

/*
 * Move NOT NULL from one column of a table to another.  While rows do not prove
 * it of the other, that has the constraint, not valid, or none.
 */
static void
move_not_null(Oid relid, const char *from, const char *to, bool proven)
{
	AttrNumber	old = get_attnum(relid, from);
	AttrNumber	new = get_attnum(relid, to);

	if (!alter_is_not_null(relid, from))
		return;
	mark_not_null(relid, old, false);
	if (move_not_null_constraint(relid, old, new, proven) || proven)
		mark_not_null(relid, new, true);
	CacheInvalidateRelcacheByRelid(relid);
}

/*
 * Move NOT NULL constraints to the sidecars, or back.  A sidecar is NULL where the
 * carrier was, so they hold, or (not valid) do not, of the same rows.
 */
void
alter_move_not_null(const ProtectPlan *plan, bool back)
{
	ListCell   *cell;
	ListCell   *lc;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		char	   *from = back ? column->sidecar : column->carrier;
		char	   *to = back ? column->carrier : column->sidecar;

		if (!column->is_new)
			continue;
		/* A partition may have come with a carrier that was NOT NULL. */
		foreach(lc, plan->relids)
		{
			if (alter_is_not_null(lfirst_oid(lc), from) && alter_is_not_null(lfirst_oid(lc), to))
				protect_execute(psprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
										 protect_table_name(lfirst_oid(lc)), quote_identifier(to)));
		}
		foreach(lc, plan->relids)
			move_not_null(lfirst_oid(lc), from, to, true);
	}
	CommandCounterIncrement();
}

/*
 * Let go of a carrier's NOT NULL while rows are not sealed yet.  Returns the words
 * for the trigger's arguments that keep it; NIL where there is none.
 */
List *
alter_suspend_not_null(const ProtectPlan *plan, const ProtectColumn *column)
{
	ListCell   *cell;

	if (!alter_is_not_null(plan->relid, column->carrier))
		return NIL;
	foreach(cell, plan->relids)
		move_not_null(lfirst_oid(cell), column->carrier, column->sidecar, false);
	CommandCounterIncrement();
	return list_make2(SEAL_ARG_NOT_NULL, column->carrier);
}

/* A column's NOT NULL constraint is known to hold. */
static void
mark_valid(Oid relid, const char *column)
{
	Relation	catalog = table_open(ConstraintRelationId, RowExclusiveLock);
	HeapTuple	tuple = not_null_constraint(catalog, relid, get_attnum(relid, column));

	if (tuple)
	{
		((Form_pg_constraint) GETSTRUCT(tuple))->convalidated = true;
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
		CacheInvalidateRelcacheByRelid(relid);
	}
	table_close(catalog, RowExclusiveLock);
}

/*
 * What these words say becomes NOT NULL of the sidecars, or (back) of the carriers;
 * rows prove it now.  Constraints that have come there, not valid, become valid.
 */
void
alter_resume_not_null(const ProtectPlan *plan, bool back)
{
	ListCell   *cell;

	for (int i = 0; i + 1 < list_length(plan->words); i++)
	{
		char	   *column;

		if (strcmp(list_nth(plan->words, i), SEAL_ARG_NOT_NULL) != 0)
			continue;
		column = list_nth(plan->words, ++i);
		if (!back)
			column = protect_column_name(column, SIDECAR_SUFFIX);
		if (!alter_is_not_null(plan->relid, column))
			protect_execute(psprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
									 plan->table, quote_identifier(column)));
		else
		{
			foreach(cell, plan->relids)
				mark_valid(lfirst_oid(cell), column);
		}
	}
	CommandCounterIncrement();
}

/* Say of carriers and sidecars what must hold. */
void
alter_add_checks(const ProtectPlan *plan, bool valid)
{
	const char *suffix = valid ? "" : " NOT VALID";
	char	   *schema = extension_schema();
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		const char *sidecar = quote_identifier(column->sidecar);
		char	   *plain = protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX);

		if (!column->is_new)
			continue;
		protect_execute(psprintf("ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s IS NULL)%s,"
								 " ADD CONSTRAINT %s CHECK (%s.envelope_is_sealed(%s))%s",
								 plan->table, quote_identifier(plain),
								 quote_identifier(column->carrier), suffix,
								 sidecar, schema, sidecar, suffix));
	}
}

/* Has the table a constraint of this name? */
bool
alter_has_constraint(const ProtectPlan *plan, const char *name)
{
	return protect_query(psprintf("SELECT 1 FROM pg_catalog.pg_constraint"
								  " WHERE conrelid = %u AND conname = %s",
								  plan->relid, quote_literal_cstr(name))) != NULL;
}

/* Drop a constraint if it is there. */
void
alter_drop_constraint(const ProtectPlan *plan, const char *name)
{
	if (alter_has_constraint(plan, name))
		protect_execute(psprintf("ALTER TABLE %s DROP CONSTRAINT %s", plan->table,
								 quote_identifier(name)));
}

/* Drop what alter_add_checks made, and what proves NOT NULL for a moment. */
void
alter_drop_checks(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (!column->is_new)
			continue;
		alter_drop_constraint(plan, protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX));
		alter_drop_constraint(plan, column->sidecar);
		alter_drop_constraint(plan, protect_column_name(column->carrier, NOT_NULL_SUFFIX));
	}
}

/*
 * Has a constraint to be moved?  It mentions a column that is being protected,
 * or unprotected, and none that was protected before.
 */
static bool
is_to_move(const ProtectPlan *plan, Oid relid, Datum conkey)
{
	bool		result = false;
	Datum	   *attnums;
	int			n;
	ListCell   *cell;

	deconstruct_array(DatumGetArrayTypeP(conkey), INT2OID, sizeof(int16), true,
					  TYPALIGN_SHORT, &attnums, NULL, &n);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		AttrNumber	attnum = get_attnum(relid, column->carrier);

		for (int i = 0; i < n; i++)
		{
			if (DatumGetInt16(attnums[i]) != attnum)
				continue;
			if (!column->is_new)
				return false;
			result = true;
		}
	}
	return result;
}

/* The constraint's expression as it is to be; NULL where it is so already */
static Node *
moved_expression(Node *expression, bool back)
{
	if (back)
		return seal_moved_check(expression);
	return (Node *) makeBoolExpr(OR_EXPR,
								 list_make2(expression, makeBoolConst(true, false)), -1);
}

/* Move the CHECK constraints of one table to the trigger, or back. */
static void
move_checks(const ProtectPlan *plan, Oid relid, bool back)
{
	Relation	catalog = table_open(ConstraintRelationId, RowExclusiveLock);
	TupleDesc	desc = RelationGetDescr(catalog);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_pg_constraint] = {0};
		bool		nulls[Natts_pg_constraint] = {0};
		bool		replaces[Natts_pg_constraint] = {0};
		bool		no_key;
		bool		isnull;
		Datum		conkey = heap_getattr(tuple, Anum_pg_constraint_conkey, desc, &no_key);
		Datum		conbin = heap_getattr(tuple, Anum_pg_constraint_conbin, desc, &isnull);
		Node	   *expression;

		if (((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_CHECK ||
			no_key || isnull || !is_to_move(plan, relid, conkey))
			continue;
		expression = moved_expression(stringToNode(TextDatumGetCString(conbin)), back);
		if (expression == NULL)
			continue;
		values[Anum_pg_constraint_conbin - 1] =
			CStringGetTextDatum(nodeToString(expression));
		replaces[Anum_pg_constraint_conbin - 1] = true;
		tuple = heap_modify_tuple(tuple, desc, values, nulls, replaces);
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(relid);
}

/*
 * Move CHECK constraints to the trigger, or back.  Those that alter_add_checks
 * makes must not be there: they stay what they are.
 */
void
alter_move_checks(const ProtectPlan *plan, bool back)
{
	ListCell   *cell;

	foreach(cell, plan->relids)
		move_checks(plan, lfirst_oid(cell), back);
	CommandCounterIncrement();
}

void
alter_drop_trigger(const ProtectPlan *plan)
{
	protect_execute(psprintf("DROP TRIGGER %s ON %s", SEAL_TRIGGER, plan->table));
}

/* Make the trigger for all columns, in place of one that is there. */
void
alter_make_trigger(const ProtectPlan *plan)
{
	StringInfoData args;
	ListCell   *cell;

	initStringInfo(&args);
	appendStringInfoString(&args, quote_literal_cstr(plan->tenant));
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		appendStringInfo(&args, ", %s, %s, %s, %s",
						 quote_literal_cstr(column->carrier),
						 quote_literal_cstr(column->sidecar),
						 quote_literal_cstr(column->term ? column->term : ""),
						 quote_literal_cstr(column->context));
	}
	if (plan->words)
		appendStringInfo(&args, ", '%s'", SEAL_ARG_END);
	foreach(cell, plan->words)
		appendStringInfo(&args, ", %s", quote_literal_cstr(lfirst(cell)));

	if (plan->is_protected)
		alter_drop_trigger(plan);
	protect_execute(psprintf("CREATE TRIGGER %s BEFORE INSERT OR UPDATE ON %s"
							 " FOR EACH ROW EXECUTE FUNCTION %s.%s(%s)",
							 SEAL_TRIGGER, plan->table, ENVELOPE_SCHEMA,
							 SEAL_FUNCTION, args.data));
	protect_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
							 plan->table, SEAL_TRIGGER));
}
