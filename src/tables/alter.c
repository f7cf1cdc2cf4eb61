/*-------------------------------------------------------------------------
 *
 * alter.c
 *	  What envelope_protect changes about a table's columns and constraints.
 *
 * A carrier is NULL on disk, so its constraints go where they can be kept:
 *
 *	- NOT NULL goes to the sidecar, under the name that it has since PostgreSQL
 *	  18; the trigger raises it for the carrier.
 *	- A CHECK stays where it is, with its name, comment and dependencies, and
 *	  becomes (expression OR true), which holds for every row and costs nothing.
 *	  The trigger evaluates the expression over opened values (seal_check.c).
 *
 * All of it is undone the same way.  Statements are run as the table's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
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

/* A table of the plan, quoted and qualified */
static char *
table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
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

/* Its name, quoted; NULL before PostgreSQL 18, where such constraints have none */
static char *
not_null_name(Oid relid, const char *column)
{
	return protect_query(psprintf("SELECT pg_catalog.quote_ident(c.conname)"
								  " FROM pg_catalog.pg_constraint c"
								  " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid"
								  " WHERE c.conrelid = %u AND c.contype = 'n'"
								  " AND a.attname = %s AND c.conkey = ARRAY[a.attnum]",
								  relid, quote_literal_cstr(column)));
}

/* Drop NOT NULL from a column; returns the statement that gives it to another. */
static char *
drop_not_null(Oid relid, const char *from, const char *to)
{
	char	   *table = table_name(relid);
	char	   *name = not_null_name(relid, from);

	protect_execute(psprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
							 table, quote_identifier(from)));
	return name ?
		psprintf("ALTER TABLE %s ADD CONSTRAINT %s NOT NULL %s",
				 table, name, quote_identifier(to)) :
		psprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
				 table, quote_identifier(to));
}

/*
 * Move NOT NULL constraints to the sidecars, or back.  SET NOT NULL looks at all
 * columns that are NOT NULL, so none of the old ones may be there any more.
 */
void
alter_move_not_null(const ProtectPlan *plan, bool back)
{
	List	   *statements = NIL;
	ListCell   *cell;
	ListCell   *lc;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		char	   *from = back ? column->sidecar : column->carrier;
		char	   *to = back ? column->carrier : column->sidecar;

		if (!column->is_new)
			continue;

		/*
		 * They are dropped from the table first, and its partitions follow
		 * it; and made the other way round, as a partition takes no other
		 * name for one that it has from the table.
		 */
		foreach(lc, plan->relids)
		{
			if (alter_is_not_null(lfirst_oid(lc), from))
				statements = lcons(drop_not_null(lfirst_oid(lc), from, to), statements);
		}
	}
	foreach(cell, statements)
		protect_execute(lfirst(cell));
}

/*
 * Drop NOT NULL from a carrier, with nothing in its place but the words for the
 * trigger's arguments that are returned.
 */
List *
alter_drop_not_null(const ProtectPlan *plan, const ProtectColumn *column)
{
	char	   *name;
	ListCell   *cell;

	if (!alter_is_not_null(plan->relid, column->carrier))
		return NIL;
	name = not_null_name(plan->relid, column->carrier);
	/* Since PostgreSQL 18 a partition may have said it for itself too. */
	foreach(cell, plan->relids)
	{
		if (alter_is_not_null(lfirst_oid(cell), column->carrier))
			protect_execute(psprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
									 table_name(lfirst_oid(cell)),
									 quote_identifier(column->carrier)));
	}
	return list_make3(SEAL_ARG_NOT_NULL, column->carrier, name ? name : "");
}

/* What these words say becomes NOT NULL of the sidecars, or (back) of the carriers. */
void
alter_set_not_null(const ProtectPlan *plan, bool back)
{
	for (int i = 0; i + 2 < list_length(plan->words); i++)
	{
		const char *name;
		char	   *column;

		if (strcmp(list_nth(plan->words, i), SEAL_ARG_NOT_NULL) != 0)
			continue;
		column = list_nth(plan->words, i + 1);
		if (!back)
			column = protect_column_name(column, SIDECAR_SUFFIX);
		name = list_nth(plan->words, i + 2);
		protect_execute(name[0] ?
						psprintf("ALTER TABLE %s ADD CONSTRAINT %s NOT NULL %s",
								 plan->table, name, quote_identifier(column)) :
						psprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
								 plan->table, quote_identifier(column)));
		i += 2;
	}
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
