/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  Where sealed values are stored: columns that applications fill by hand.
 *
 * Such a column is known by a trigger on its table.  The trigger is there to
 * guard (a value under a key that is to be destroyed is not stored any more),
 * and it is the registry too: its WHEN clause,
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
 * somebody has taken the trigger away.
 *
 * The guard asks the memo, after the executor has locked the leaf table: so
 * each transaction that begins after a key was scheduled for destruction has
 * accepted the invalidation by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteManip.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "compat.h"
#include "errors.h"
#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/memo.h"
#include "keys/store.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/registry.h"

PG_FUNCTION_INFO_V1(envelope_seal_guard);

/* Sorts after the triggers of applications, which see to what is stored. */
#define GUARD_PREFIX "zzz_envelope_guard_"

/* Of a row c of envelope.registered_columns: somebody has taken its trigger away */
#define IS_LOST \
	"NOT EXISTS (SELECT FROM pg_trigger t" \
	" WHERE t.tgfoid = 'envelope.seal_guard'::regproc" \
	" AND split_part(encode(t.tgargs, 'escape'), E'\\\\000', 1) = c.registration::text)"

/* The trigger function; InvalidOid where envelope is not in this database */
static Oid
guard_function(void)
{
	return protection_function(SEAL_GUARD_FUNCTION);
}

/* The qualified and quoted name of a table, palloc'd */
static char *
table_name(Relation rel)
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
try_read_guard(const Trigger *trigger, SealedColumn * column)
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
static void
read_guard(Relation rel, const Trigger *trigger, SealedColumn * column)
{
	if (!try_read_guard(trigger, column))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" of relation \"%s\" was not made by envelope_register_column",
						trigger->tgname, RelationGetRelationName(rel))));
}

/* Add the sidecars of a protected table. */
static void
read_protected(Relation rel, const Protection *protection, SealedTable * table)
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
			 errmsg("trigger \"%s\" does not fit table %s", trigger, table_name(rel)),
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
	Oid			function = guard_function();
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
	Oid			guard = guard_function();
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
	Oid			function = guard_function();
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
	table = names ? table_name(rel) : NULL;
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
						  " WHERE " IS_LOST " ORDER BY 3 DESC, 1, 2", 0, NULL);
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
registry_context(SealedColumn * column, TupleTableSlot *slot, EState *estate,
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

/* The column that a guard is called for, read once a statement */
static const SealedColumn *
guarded_column(FunctionCallInfo fcinfo)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	SealedColumn *column = fcinfo->flinfo->fn_extra;
	MemoryContext oldcontext;

	if (column)
		return column;
	oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	column = palloc(sizeof(SealedColumn));
	read_guard(trigdata->tg_relation, trigdata->tg_trigger, column);
	MemoryContextSwitchTo(oldcontext);
	fcinfo->flinfo->fn_extra = column;
	return column;
}

/* Had the row this very value before? */
static bool
had_value(TriggerData *trigdata, AttrNumber attnum, Datum value)
{
	bool		isnull;
	Datum		before;

	if (!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		return false;
	before = heap_getattr(trigdata->tg_trigtuple, attnum,
						  RelationGetDescr(trigdata->tg_relation), &isnull);
	return !isnull && (datumIsEqual(value, before, false, -1) ||
					   datum_image_eq(value, before, false, -1));
}

/*
 * Trigger, BEFORE INSERT OR UPDATE FOR EACH ROW: a value under a key that is
 * about to be destroyed, or was, is not stored (VE005), unless the row had it
 * before: whoever looks for the key's values finds it there anyway.  Anything
 * else is not the guard's business: what is no sealed value, and keys that are
 * not here.
 */
Datum
envelope_seal_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const		SealedColumn *column;
	HeapTuple	row;
	Datum		value;
	bool		isnull;
	int64		key_id;
	const KeyMemo *key;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("seal_guard can only be called as a trigger before INSERT or UPDATE, for each row")));

	column = guarded_column(fcinfo);
	row = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
		trigdata->tg_newtuple : trigdata->tg_trigtuple;
	value = heap_getattr(row, column->column, RelationGetDescr(trigdata->tg_relation),
						 &isnull);
	if (isnull || had_value(trigdata, column->column, value) ||
		!sealed_value_key(value, &key_id))
		return PointerGetDatum(row);

	key = memo_key(key_id);
	if (key && (key->state == KEY_SCHEDULED || key->state == KEY_DESTROYED))
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_DESTROYED),
				 errmsg("nothing can be stored under key " INT64_FORMAT " any more", key_id),
				 errdetail(key->state == KEY_DESTROYED ? "It was destroyed." :
						   "It is about to be destroyed.")));
	return PointerGetDatum(row);
}

/* The attribute number of a column; 42703 where there is none. */
static AttrNumber
column_number(Relation rel, const char *name)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel))));
	return attnum;
}

/* Refuse what cannot hold sealed values. */
static void
check_table(Relation rel)
{
	if ((rel->rd_rel->relkind != RELKIND_RELATION &&
		 rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE) ||
		rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP ||
		IsSystemRelation(rel) ||
		get_rel_namespace(RelationGetRelid(rel)) == get_namespace_oid(ENVELOPE_SCHEMA, true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an ordinary or partitioned table",
						RelationGetRelationName(rel))));
	if (rel->rd_rel->relkind == RELKIND_RELATION && !rel->rd_rel->relispartition &&
		(has_subclass(RelationGetRelid(rel)) || has_superclass(RelationGetRelid(rel))))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"%s\" is part of an inheritance tree", RelationGetRelationName(rel)),
				 errhint("Partitioned tables can be registered.")));
}

/* Refuse columns that are not of the right kind. */
static void
check_columns(Relation rel, AttrNumber column, AttrNumber tenant)
{
	Form_pg_attribute value_attr = TupleDescAttr(RelationGetDescr(rel), column - 1);
	Form_pg_attribute tenant_attr = TupleDescAttr(RelationGetDescr(rel), tenant - 1);
	Oid			type = tenant_attr->atttypid;

	if (value_attr->atttypid != BYTEAOID || value_attr->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" cannot hold sealed values",
						NameStr(value_attr->attname), RelationGetRelationName(rel)),
				 errdetail("A sealed value is a bytea, and not generated.")));
	if (type != TEXTOID && type != VARCHAROID && type != UUIDOID &&
		type != INT4OID && type != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" cannot hold tenant ids",
						NameStr(tenant_attr->attname), RelationGetRelationName(rel)),
				 errdetail("A tenant id is a text, varchar, uuid, integer or bigint.")));
}

/*
 * Refuse tables that logical replication publishes and could not update, and
 * columns that are known already.
 */
static void
check_leaves(Relation rel, AttrNumber column)
{
	List	   *relids = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
	SealedTable *known = registry_read(rel);
	ListCell   *cell;

	foreach(cell, relids)
	{
		Relation	leaf = table_open(lfirst_oid(cell), NoLock);

		if (leaf->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("partition \"%s\" is a foreign table",
							RelationGetRelationName(leaf))));
		if (leaf->rd_rel->relkind == RELKIND_RELATION)
			CheckCmdReplicaIdentity(leaf, CMD_UPDATE);
		table_close(leaf, NoLock);
	}
	for (int i = 0; known && i < known->ncolumns; i++)
	{
		if (known->columns[i].column == column)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("column \"%s\" of relation \"%s\" is registered already",
							NameStr(TupleDescAttr(RelationGetDescr(rel), column - 1)->attname),
							RelationGetRelationName(rel))));
	}
}

/* May the role not execute a function? */
static bool
is_out_of_reach(Oid function, void *role)
{
	return object_aclcheck(ProcedureRelationId, function, *(Oid *) role, ACL_EXECUTE) != ACLCHECK_OK;
}

static bool
calls_out_of_reach(Node *node, void *role)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, is_out_of_reach, role) ||
		expression_tree_walker(node, calls_out_of_reach, role);
}

/*
 * Refuse (42501) an expression that the table's owner could not evaluate, as
 * which it is going to be.
 */
static void
check_context(Relation rel, Node *node)
{
	Oid			owner = rel->rd_rel->relowner;

	if (calls_out_of_reach(node, &owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of table \"%s\" may not execute a function of the context",
						RelationGetRelationName(rel))));
}

/*
 * An expression over the row as SQL over NEW, palloc'd; for search_path as the
 * caller has it.
 */
static Node *
parse_context(Relation rel, const char *expression)
{
	List	   *parsed = raw_parser(psprintf("SELECT (%s)", expression), RAW_PARSE_DEFAULT);
	SelectStmt *select = list_length(parsed) == 1 ?
		(SelectStmt *) linitial_node(RawStmt, parsed)->stmt : NULL;
	ParseState *pstate = make_parsestate(NULL);
	Node	   *node;

	if (select == NULL || !IsA(select, SelectStmt) || select->op != SETOP_NONE ||
		list_length(select->targetList) != 1 || select->fromClause ||
		select->whereClause || select->groupClause || select->havingClause ||
		select->sortClause || select->limitCount || select->limitOffset ||
		select->withClause || select->intoClause || select->distinctClause ||
		select->windowClause || select->lockingClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the context must be one expression over the row")));

	addNSItemToQuery(pstate,
					 addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
												   NULL, false, true),
					 false, true, true);
	node = transformExpr(pstate, linitial_node(ResTarget, select->targetList)->val,
						 EXPR_KIND_CHECK_CONSTRAINT);
	node = coerce_to_target_type(pstate, node, exprType(node), TEXTOID, -1,
								 COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1);
	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the context must be of type text")));
	assign_expr_collations(pstate, node);
	return node;
}

/*
 * Forget what was registered of a table of this name, now dropped, or has lost
 * its trigger; how many.
 */
static uint64
forget_lost(const char *table, const char *column)
{
	StoreParam	params[] = {store_text(table), store_text(column)};

	return store_execute("DELETE FROM envelope.registered_columns c"
						 " WHERE table_name = $1 AND column_name = $2 AND " IS_LOST,
						 lengthof(params), params);
}

/* Insert the row; its number. */
static char *
insert_registration(const char *table, const char *column, const char *tenant,
					const char *context, const char *expression)
{
	StoreParam	params[] = {
		store_text(table),
		store_text(column),
		store_text(tenant),
		store_text(context),
		store_text(expression)
	};

	(void) store_execute("INSERT INTO envelope.registered_columns"
						 " (table_name, column_name, tenant_column, context, context_expression)"
						 " VALUES ($1, $2, $3, $4, $5) RETURNING registration",
						 lengthof(params), params);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * Become the owner of a table until store_end.  The expression is theirs, and
 * PostgreSQL evaluates parts of it when it parses it, such as a literal of an
 * array of a domain: so it is never parsed as anybody else.
 */
static void
owner_begin(OwnerScope *scope, Oid owner)
{
	store_begin_as(scope, owner,
				   SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

/*
 * Register a column, whose context is constant or (else NULL) an expression.
 * The caller owns the table.  Takes ShareRowExclusiveLock on it, as CREATE
 * TRIGGER does.
 */
void
registry_add(Oid relid, const char *column, const char *tenant,
			 const char *context, const char *expression)
{
	Relation	rel = owned_relation_open(relid, ShareRowExclusiveLock);
	Node	   *node = NULL;
	OwnerScope	scope;
	MemoryContext context_of_caller = CurrentMemoryContext;
	StringInfoData sql;
	char	   *name;
	char	   *number;
	Oid			owner;

	check_table(rel);
	check_columns(rel, column_number(rel, column), column_number(rel, tenant));
	check_leaves(rel, column_number(rel, column));
	if (context == NULL)
	{
		node = parse_context(rel, expression);
		check_context(rel, node);
	}

	name = table_name(rel);
	owner = rel->rd_rel->relowner;
	table_close(rel, NoLock);
	protect_allow_triggers(owner);

	if (node)
	{
		owner_begin(&scope, owner);
		expression = deparse_expression(node, deparse_context_for("new", relid),
										true, false);
		expression = MemoryContextStrdup(context_of_caller, expression);
		store_end(&scope);
	}
	store_begin(&scope);
	(void) forget_lost(name, column);
	number = MemoryContextStrdup(context_of_caller,
								 insert_registration(name, column, tenant, context,
													 node ? expression : NULL));
	audit_record("column.register", NULL, NULL, NO_KEY,
				 psprintf("{\"registration\": %s}", number));
	store_end(&scope);

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TRIGGER " GUARD_PREFIX "%s BEFORE INSERT OR UPDATE ON %s"
					 " FOR EACH ROW WHEN (new.%s IS NOT NULL OR new.%s IS NULL",
					 number, name, quote_identifier(column), quote_identifier(tenant));
	if (node)
		appendStringInfo(&sql, " OR (%s) IS NULL", expression);
	appendStringInfo(&sql, ") EXECUTE FUNCTION " ENVELOPE_SCHEMA ".seal_guard(%s",
					 quote_literal_cstr(number));
	if (context)
		appendStringInfo(&sql, ", %s", quote_literal_cstr(context));
	appendStringInfoChar(&sql, ')');
	owner_begin(&scope, owner);
	(void) store_execute(sql.data, 0, NULL);
	(void) store_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " GUARD_PREFIX "%s",
								  name, number), 0, NULL);
	store_end(&scope);
}

/*
 * Forget a column.  The caller owns the table.  Refused (55006) while a key is
 * about to be destroyed: the guard keeps its values out until it has gone.
 */
void
registry_remove(Oid relid, const char *column)
{
	Relation	rel = owned_relation_open(relid, ShareRowExclusiveLock);
	AttrNumber	attnum = column_number(rel, column);
	Oid			function = guard_function();
	char	   *table = table_name(rel);
	char	   *trigger = NULL;
	char	   *number = NULL;
	OwnerScope	scope;

	check_table(rel);
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *guard = &rel->trigdesc->triggers[i];
		SealedColumn sealed;

		if (guard->tgfoid != function)
			continue;
		read_guard(rel, guard, &sealed);
		if (sealed.column != attnum)
			continue;
		trigger = pstrdup(guard->tgname);
		number = pstrdup(guard->tgargs[0]);
	}
	table_close(rel, NoLock);

	store_begin(&scope);
	if (store_execute("SELECT FROM envelope.tenant_keys WHERE state = 'scheduled'", 0, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a column cannot be unregistered while a key is about to be destroyed")));
	if (trigger == NULL)
	{
		if (forget_lost(table, column) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("column \"%s\" of table %s is not registered", column, table)));
	}
	else
	{
		StoreParam	params[] = {store_text(number)};

		(void) store_execute("DELETE FROM envelope.registered_columns WHERE registration::text = $1",
							 lengthof(params), params);
		(void) store_execute(psprintf("DROP TRIGGER %s ON %s", quote_identifier(trigger), table),
							 0, NULL);
		audit_record("column.unregister", NULL, NULL, NO_KEY,
					 psprintf("{\"registration\": %s}", number));
	}
	store_end(&scope);
}
