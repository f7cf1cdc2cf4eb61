/*-------------------------------------------------------------------------
 *
 * register.c
 *	  Making known, and forgetting, where applications store sealed values.
 *
 * What is registered is checked: that the columns can hold what they are said to
 * hold, that logical replication can carry what a rotation changes, and that the
 * table's owner may evaluate the context, as which all work on a table is done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "compat.h"
#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/registry.h"

/* Sorts after the triggers of applications, which see to what is stored. */
#define GUARD_PREFIX "zzz_envelope_guard_"

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
						 " WHERE table_name = $1 AND column_name = $2 AND " REGISTRATION_IS_LOST,
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

	name = registry_table_name(rel);
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
	Oid			function = registry_guard_function();
	char	   *table = registry_table_name(rel);
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
		registry_read_guard(rel, guard, &sealed);
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
