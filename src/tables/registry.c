/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  Where sealed values are stored: columns that applications fill by hand.
 *
 * Such a column is known by a trigger on its table.  The trigger is there to
 * guard (seal_guard.c), and it is the registry too: its WHEN clause,
 *
 *	NEW.column IS NOT NULL OR NEW.tenant IS NULL [OR (context) IS NULL]
 *
 * names the columns and, where the context is an expression over the row, that
 * expression; a constant context is an argument.  So PostgreSQL itself follows
 * when tables and columns are renamed, gives partitions triggers of their own,
 * dumps it with the table, and refuses to drop a column on the way.
 *
 * The table envelope.registered_columns has a row for each registration, whose
 * number is the trigger's other argument: a row without a trigger tells that
 * somebody has taken the trigger away.  register.c makes and takes away both.
 *
 * Protected columns are known by their own trigger, and found here too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/store.h"
#include "tables/protection.h"
#include "tables/registry.h"

/* The trigger function; InvalidOid where envelope is not in this database */
Oid
registry_guard_function(void)
{
	return protection_function(SEAL_GUARD_FUNCTION);
}

/* The qualified and quoted name of a table, palloc'd */
char *
registry_table_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* The Var of an arm "NEW.x IS [NOT] NULL" of a WHEN clause, or NULL */
static Var *
arm_var(List *arms, int n, NullTestType type)
{
	NullTest   *test = list_length(arms) > n ? list_nth(arms, n) : NULL;

	if (test == NULL || !IsA(test, NullTest) || test->nulltesttype != type ||
		!IsA(test->arg, Var))
		return NULL;
	return (Var *) test->arg;
}

/*
 * Read the column that a guard stands for out of its trigger.  False where
 * somebody has made the trigger by hand, and otherwise.
 */
static bool
try_read_guard(const Trigger *trigger, SealedColumn *column)
{
	BoolExpr   *when = trigger->tgqual ? stringToNode(trigger->tgqual) : NULL;
	Var		   *value = NULL;
	Var		   *tenant = NULL;

	memset(column, 0, sizeof(*column));
	if (when && IsA(when, BoolExpr) && when->boolop == OR_EXPR)
	{
		value = arm_var(when->args, 0, IS_NOT_NULL);
		tenant = arm_var(when->args, 1, IS_NULL);
	}
	if (value == NULL || tenant == NULL ||
		trigger->tgnargs != (list_length(when->args) == 2 ? 2 : 1))
		return false;

	column->column = value->varattno;
	column->tenant = tenant->varattno;
	column->guarded = trigger->tgenabled == TRIGGER_FIRES_ALWAYS;
	if (trigger->tgnargs == 2)
		column->context = pstrdup(trigger->tgargs[1]);
	else
	{
		column->expression = (Node *) ((NullTest *) lthird(when->args))->arg;
		ChangeVarNodes(column->expression, PRS2_NEW_VARNO, 1, 0);
	}
	return true;
}

/* The same; throws (55000) where it cannot be read. */
void
registry_read_guard(Relation rel, const Trigger *trigger, SealedColumn *column)
{
	if (!try_read_guard(trigger, column))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" of relation \"%s\" was not made by envelope_register_column",
						trigger->tgname, RelationGetRelationName(rel))));
}

/* Add the sidecars of a protected table. */
static void
read_protected(Relation rel, const Protection *protection, SealedTable *table)
{
	bool		guarded = protection_trigger(rel)->tgenabled == TRIGGER_FIRES_ALWAYS;

	for (int i = 0; i < protection->ncolumns; i++)
	{
		SealedColumn *column = &table->columns[table->ncolumns++];

		column->column = protection->columns[i].sidecar;
		column->tenant = protection->tenant;
		column->context = protection->columns[i].context;
		column->guarded = guarded;
	}
}

/* Say that what a trigger stands for is left out. */
static void
warn_misfit(Relation rel, const char *trigger)
{
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("trigger \"%s\" does not fit table %s", trigger, registry_table_name(rel)),
			 errdetail("The values that it stands for are not looked at."),
			 errhint("See envelope_doctor().")));
}

/*
 * The columns of sealed values of a table that the caller has locked, palloc'd;
 * NULL where it has none.  A trigger that does not fit its table, which its
 * owner can make, is left out with a WARNING: it must not hold up others.
 */
SealedTable *
registry_read(Relation rel)
{
	Oid			function = registry_guard_function();
	TriggerDesc *triggers = rel->trigdesc;
	Protection *protection;
	SealedTable *table;
	const char *misfit;

	if (triggers == NULL || !OidIsValid(function))
		return NULL;
	protection = protection_try_read(rel, &misfit);
	if (misfit)
		warn_misfit(rel, SEAL_TRIGGER);
	table = palloc0(offsetof(SealedTable, columns) +
					(triggers->numtriggers + (protection ? protection->ncolumns : 0)) *
					sizeof(SealedColumn));
	table->relid = RelationGetRelid(rel);
	if (protection)
		read_protected(rel, protection, table);
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		if (triggers->triggers[i].tgfoid != function)
			continue;
		if (try_read_guard(&triggers->triggers[i], &table->columns[table->ncolumns]))
			table->ncolumns++;
		else
			warn_misfit(rel, triggers->triggers[i].tgname);
	}
	return table->ncolumns > 0 ? table : NULL;
}

/*
 * The tables that have storage and columns of sealed values: a list of Oid.
 * Temporary ones are not among them: nobody can look at another session's.
 */
List *
registry_tables(void)
{
	Oid			guard = registry_guard_function();
	Oid			seal = protection_function(SEAL_FUNCTION);
	List	   *relids = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(guard))
		return NIL;
	rel = table_open(TriggerRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if ((trigger->tgfoid == guard || trigger->tgfoid == seal) &&
			get_rel_relkind(trigger->tgrelid) == RELKIND_RELATION &&
			get_rel_persistence(trigger->tgrelid) != RELPERSISTENCE_TEMP)
			relids = list_append_unique_oid(relids, trigger->tgrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return relids;
}

/*
 * Make the guards of a table fire always again, where ALTER TABLE ... ENABLE
 * TRIGGER has made ordinary triggers of them, as pg_restore --disable-triggers
 * does.  Those of partitions follow their parent's.
 */
void
registry_enable_guards(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	Oid			function = registry_guard_function();
	List	   *names = NIL;
	ListCell   *cell;
	OwnerScope	scope;
	char	   *table;

	if (rel == NULL)
		return;
	for (int i = 0; rel->trigdesc && OidIsValid(function) && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == function && trigger->tgenabled != TRIGGER_FIRES_ALWAYS)
			names = lappend(names, pstrdup(trigger->tgname));
	}
	table = names ? registry_table_name(rel) : NULL;
	relation_close(rel, NoLock);
	if (names == NIL)
		return;

	store_begin(&scope);
	foreach(cell, names)
		(void) store_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", table,
									  quote_identifier(lfirst(cell))), 0, NULL);
	store_end(&scope);
}

/*
 * Throw (55000) where a registration has lost its trigger while its table is
 * still there: what the column holds would be left out, unseen.  Where the
 * table has gone too it is a warning.
 */
void
registry_check(void)
{
	OwnerScope	scope;
	uint64		nlost;

	store_begin(&scope);
	nlost = store_execute("SELECT c.table_name, c.column_name, to_regclass(c.table_name) IS NOT NULL"
						  " FROM envelope.registered_columns c"
						  " WHERE " REGISTRATION_IS_LOST " ORDER BY 3 DESC, 1, 2", 0, NULL);
	for (uint64 i = 0; i < nlost; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		char	   *table = SPI_getvalue(row, desc, 1);
		char	   *column = SPI_getvalue(row, desc, 2);
		bool		there = strcmp(SPI_getvalue(row, desc, 3), "t") == 0;

		ereport(there ? ERROR : WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 there ?
				 errmsg("the guard of column \"%s\" of table %s has gone", column, table) :
				 errmsg("table %s, whose column \"%s\" was registered, has gone", table, column),
				 there ?
				 errhint("Register the column again, or unregister it.") :
				 errhint("Delete its row from envelope.registered_columns.")));
	}
	store_end(&scope);
}

/*
 * The context of a column's value in a row, as UTF-8.  Throws (22004) where an
 * expression gives null.  The expression is evaluated as whoever the caller has
 * become.
 */
const char *
registry_context(SealedColumn *column, TupleTableSlot *slot, EState *estate,
				 size_t *len)
{
	ExprContext *econtext;
	Datum		context;
	bool		isnull;

	if (column->context)
	{
		*len = strlen(column->context);
		return utf8_from_server(column->context, len);
	}

	econtext = GetPerTupleExprContext(estate);
	if (column->state == NULL)
		column->state = ExecPrepareExpr((Expr *) column->expression, estate);
	econtext->ecxt_scantuple = slot;
	context = ExecEvalExprSwitchContext(column->state, econtext, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the context of a value of column \"%s\" is null",
						NameStr(TupleDescAttr(slot->tts_tupleDescriptor,
											  column->column - 1)->attname))));
	*len = VARSIZE_ANY_EXHDR(DatumGetTextPP(context));
	return utf8_from_server(VARDATA_ANY(DatumGetTextPP(context)), len);
}

/*
 * The id of the key that a stored value is sealed under; false where it is no
 * sealed value.  Of what is stored out of line only the beginning is fetched.
 */
bool
sealed_value_key(Datum value, int64 *key_id)
{
	struct varlena *varlena = (struct varlena *) DatumGetPointer(value);
	SealedValue sealed;
	size_t		len;

	if (!VARATT_IS_EXTERNAL(varlena) && !VARATT_IS_COMPRESSED(varlena))
	{
		if (!sealed_parse((const uint8 *) VARDATA_ANY(varlena),
						  VARSIZE_ANY_EXHDR(varlena), &sealed))
			return false;
	}
	else
	{
		len = toast_raw_datum_size(value) - VARHDRSZ;
		if (len < SEALED_HEADER_BYTES)
			return false;
		varlena = (struct varlena *) PG_DETOAST_DATUM_SLICE(value, 0, SEALED_HEADER_BYTES);
		if (!sealed_parse((const uint8 *) VARDATA_ANY(varlena), len, &sealed))
			return false;
	}
	*key_id = sealed.key_id;
	return true;
}
