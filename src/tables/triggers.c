/*-------------------------------------------------------------------------
 *
 * triggers.c
 *	  Triggers of the application on protected tables.
 *
 * A row trigger would see what is stored.  So each gets envelope.call_trigger
 * (trigger_call.c) in place of its function, whose name becomes the first
 * argument; a condition that looks at protected columns becomes (condition OR
 * true), and is evaluated there.  Everything else about the trigger stays, its
 * dependency on the function too: what the catalogs say of it is changed in
 * place, in partitions as well.
 *
 * The name is what a dump carries.  It is changed when the function or its schema
 * is renamed.
 *
 * Triggers for statements see rows by queries on transition tables, which are
 * planned like any other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "rewrite/prs2lock.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "tables/protection.h"
#include "tables/seal.h"
#include "tables/triggers.h"

/* A trigger of a protected table, and what it calls */
typedef struct CalledFunction
{
	Oid			trigger;
	Oid			relid;
	Oid			function;
	char	   *name;			/* by which it is called */
} CalledFunction;

/* The function without arguments of a qualified name; InvalidOid for none */
static Oid
function_of_name(const char *name)
{
	char	   *schema;
	char	   *base;

	/* Not LookupFuncName, which asks for a privilege on the schema. */
	DeconstructQualifiedName(qualified_name_list(name), &schema, &base);
	return schema == NULL ? InvalidOid :
		GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(base),
						PointerGetDatum(buildoidvector(NULL, 0)),
						ObjectIdGetDatum(get_namespace_oid(schema, true)));
}

/* The trigger function of a qualified name; 42883 where there is none */
Oid
triggers_function(const char *name)
{
	Oid			function = function_of_name(name);

	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s() does not exist", name),
				 errdetail("A trigger of a protected table calls it by this name.")));
	if (get_func_rettype(function) != TRIGGEROID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("function %s must return type %s", name, "trigger")));
	return function;
}

/* Does a condition look at a protected column, or the whole row? */
static bool
looks_at_carrier(Node *condition, const Protection *protection)
{
	Bitmapset  *attributes = NULL;

	pull_varattnos(condition, PRS2_OLD_VARNO, &attributes);
	pull_varattnos(condition, PRS2_NEW_VARNO, &attributes);
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes))
		return true;
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (bms_is_member(protection->columns[i].carrier - FirstLowInvalidHeapAttributeNumber,
						  attributes))
			return true;
	}
	return false;
}

/* The arguments of a trigger, as they are stored */
static List *
read_arguments(HeapTuple tuple, TupleDesc desc)
{
	int			nargs = ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs;
	bool		isnull;
	Datum		datum = heap_getattr(tuple, Anum_pg_trigger_tgargs, desc, &isnull);
	const char *at = VARDATA_ANY(DatumGetByteaPP(datum));
	List	   *arguments = NIL;

	for (int i = 0; i < nargs; i++)
	{
		arguments = lappend(arguments, pstrdup(at));
		at += strlen(at) + 1;
	}
	return arguments;
}

static Datum
write_arguments(List *arguments)
{
	StringInfoData bytes;
	ListCell   *cell;

	initStringInfo(&bytes);
	foreach(cell, arguments)
		appendBinaryStringInfo(&bytes, lfirst(cell), strlen(lfirst(cell)) + 1);
	return PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.len));
}

/* Change what a trigger calls, its arguments and condition. */
static void
change_trigger(Relation catalog, HeapTuple tuple, Oid function, List *arguments,
			   Node *condition)
{
	Datum		values[Natts_pg_trigger] = {0};
	bool		nulls[Natts_pg_trigger] = {0};
	bool		replaces[Natts_pg_trigger] = {0};
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	ObjectAddress trigger;
	ObjectAddress called;

	values[Anum_pg_trigger_tgfoid - 1] = ObjectIdGetDatum(function);
	values[Anum_pg_trigger_tgnargs - 1] = Int16GetDatum(list_length(arguments));
	values[Anum_pg_trigger_tgargs - 1] = write_arguments(arguments);
	replaces[Anum_pg_trigger_tgfoid - 1] = true;
	replaces[Anum_pg_trigger_tgnargs - 1] = true;
	replaces[Anum_pg_trigger_tgargs - 1] = true;
	if (condition)
	{
		values[Anum_pg_trigger_tgqual - 1] = CStringGetTextDatum(nodeToString(condition));
		replaces[Anum_pg_trigger_tgqual - 1] = true;
	}
	ObjectAddressSet(trigger, TriggerRelationId, form->oid);
	ObjectAddressSet(called, ProcedureRelationId, function);
	if (function != form->tgfoid)
		recordDependencyOn(&trigger, &called, DEPENDENCY_NORMAL);
	tuple = heap_modify_tuple(tuple, RelationGetDescr(catalog), values, nulls, replaces);
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
}

static char *
function_name(Oid function)
{
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
									  get_func_name(function));
}

/* The condition of a trigger; NULL where it has none */
static Node *
read_condition(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, Anum_pg_trigger_tgqual, desc, &isnull);

	return isnull ? NULL : stringToNode(TextDatumGetCString(datum));
}

static void
wrap_trigger(Relation catalog, HeapTuple tuple, Oid wrapper, const Protection *protection)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	TupleDesc	desc = RelationGetDescr(catalog);
	Node	   *condition = read_condition(tuple, desc);
	char	   *name = function_name(form->tgfoid);

	if (condition)
		condition = looks_at_carrier(condition, protection) ?
			(Node *) makeBoolExpr(OR_EXPR, list_make2(condition, makeBoolConst(true, false)), -1) :
			NULL;
	change_trigger(catalog, tuple, wrapper, lcons(name, read_arguments(tuple, desc)), condition);
}

static void
unwrap_trigger(Relation catalog, HeapTuple tuple, Oid wrapper)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	TupleDesc	desc = RelationGetDescr(catalog);
	List	   *arguments = read_arguments(tuple, desc);
	Oid			function = triggers_function(linitial(arguments));
	Oid			trigger = form->oid;

	deleteDependencyRecordsForSpecific(TriggerRelationId, trigger, DEPENDENCY_NORMAL,
									   ProcedureRelationId, wrapper);
	deleteDependencyRecordsForSpecific(TriggerRelationId, trigger, DEPENDENCY_NORMAL,
									   ProcedureRelationId, function);
	change_trigger(catalog, tuple, function, list_delete_first(arguments),
				   seal_moved_check(read_condition(tuple, desc)));
}

/* Wrap, or (back) unwrap, the triggers of one table. */
static void
change_triggers(Oid relid, bool back)
{
	Oid			wrapper = protection_function(CALL_TRIGGER_FUNCTION);
	Protection *protection = protection_of(relid);
	Relation	catalog = table_open(TriggerRelationId, RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if (form->tgisinternal || !TRIGGER_FOR_ROW(form->tgtype) ||
			form->tgfoid == protection_seal_function() ||
			form->tgfoid == protection_function(SEAL_GUARD_FUNCTION))
			continue;
		if (back && form->tgfoid == wrapper)
			unwrap_trigger(catalog, tuple, wrapper);
		else if (!back && form->tgfoid != wrapper)
			wrap_trigger(catalog, tuple, wrapper, protection);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(relid);
}

/* Have the application's triggers called with opened rows. */
void
triggers_wrap(const ProtectPlan *plan)
{
	ListCell   *cell;

	CommandCounterIncrement();
	foreach(cell, plan->relids)
		change_triggers(lfirst_oid(cell), false);
	CommandCounterIncrement();
}

/* Have them called as before. */
void
triggers_unwrap(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->relids)
		change_triggers(lfirst_oid(cell), true);
	CommandCounterIncrement();
}

/*
 * What the triggers of all protected tables call, for triggers_follow.
 */
List *
triggers_called(void)
{
	Oid			wrapper = protection_function(CALL_TRIGGER_FUNCTION);
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		CalledFunction *called;

		if (form->tgfoid != wrapper || form->tgnargs < 1)
			continue;
		called = palloc(sizeof(CalledFunction));
		called->trigger = form->oid;
		called->relid = form->tgrelid;
		called->name = linitial(read_arguments(tuple, RelationGetDescr(catalog)));
		called->function = function_of_name(called->name);
		result = lappend(result, called);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/* Have a trigger call its function by the name that this has now. */
static void
follow_name(const CalledFunction *called, char *name)
{
	Relation	catalog;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	/*
	 * Whoever is writing goes by the old name, which is there until we
	 * commit.
	 */
	LockRelationOid(called->relid, ShareRowExclusiveLock);
	catalog = table_open(TriggerRelationId, RowExclusiveLock);
	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(called->trigger));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		List	   *arguments = read_arguments(tuple, RelationGetDescr(catalog));

		linitial(arguments) = name;
		change_trigger(catalog, tuple, ((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid,
					   arguments, NULL);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(called->relid);
}

/*
 * What triggers called, by triggers_called, they call by the names that it has
 * come to have.
 */
void
triggers_follow(List *called)
{
	ListCell   *cell;

	if (called == NIL)
		return;
	CommandCounterIncrement();
	foreach(cell, called)
	{
		const CalledFunction *one = lfirst(cell);
		char	   *name;

		if (!OidIsValid(one->function) || get_func_name(one->function) == NULL)
			continue;
		name = function_name(one->function);
		if (strcmp(name, one->name) != 0)
			follow_name(one, name);
	}
}
