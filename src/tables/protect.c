/*-------------------------------------------------------------------------
 *
 * protect.c
 *	  Making a table's columns protected, and ordinary again.
 *
 * Each column keeps its name and type and gets a sidecar, which holds what is
 * sealed; a searchable one gets a term too.  All is done in the caller's
 * transaction, under a lock that keeps everybody else out, as the table's
 * owner.  What would be refused is refused before anything is changed.
 *
 * The steps are in alter.c, term_index.c and rewrite.c; what is refused in refuse.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "compat.h"
#include "errors.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "shmem.h"
#include "tables/protect.h"
#include "tables/protect_progress.h"
#include "tables/protection.h"
#include "tables/triggers.h"
#include "tables/utility.h"
#include "tables/value.h"

PG_FUNCTION_INFO_V1(envelope_protect);
PG_FUNCTION_INFO_V1(envelope_unprotect);

/*
 * Throw (VE008) unless this server and the next one that is started preload
 * the module.
 */
void
protect_require_preload(void)
{
	const char *setting = GetConfigOption("shared_preload_libraries", false, false);
	List	   *libraries;
	ListCell   *cell;

	shmem_require();
	if (SplitDirectoriesString(pstrdup(setting), ',', &libraries))
	{
		foreach(cell, libraries)
		{
			const char *name = last_dir_separator(lfirst(cell));

			name = name ? name + 1 : lfirst(cell);
			if (strcmp(name, "envelope") == 0 || strcmp(name, "envelope.so") == 0)
				return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_NOT_RUNNING),
			 errmsg("\"envelope\" is not in shared_preload_libraries"),
			 errhint("A protected table cannot be read without the module.")));
}

/* What a table is called in statements */
char *
protect_table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* The name of a column or constraint beside a carrier */
char *
protect_column_name(const char *carrier, const char *suffix)
{
	int			room = NAMEDATALEN - 1 - (int) strlen(suffix);
	int			len = pg_mbcliplen(carrier, (int) strlen(carrier), room);

	return psprintf("%.*s%s", len, carrier, suffix);
}

/* The elements of an argument of type name[] */
static List *
names_of(FunctionCallInfo fcinfo, int argument)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	List	   *names = NIL;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), NAMEOID, NAMEDATALEN,
					  false, TYPALIGN_CHAR, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the name of a column must not be null")));
		names = lappend(names, pstrdup(NameStr(*DatumGetName(elements[i]))));
	}
	return names;
}

/* Is a name among others? */
static bool
is_among(const char *name, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

/*
 * Execute a statement on the table, between protect_begin and protect_end; it is
 * freed.
 */
void
protect_execute(char *statement)
{
	int			rc = SPI_execute(statement, false, 0);

	if (rc < 0)
		elog(ERROR, "a statement on the table failed: %s", SPI_result_code_string(rc));
	pfree(statement);
}

/* The first column of the first row of a query; NULL where there is none */
char *
protect_query(char *query)
{
	char	   *value = NULL;

	if (SPI_execute(query, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "a query on the catalogs failed");
	if (SPI_processed > 0)
		value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	pfree(query);
	return value;
}

/* Execute a statement that is a tree already. */
void
protect_run_utility(Node *statement)
{
	PlannedStmt *plan = makeNode(PlannedStmt);

	plan->commandType = CMD_UTILITY;
	plan->utilityStmt = statement;
	ProcessUtility(plan, "", false, PROCESS_UTILITY_SUBCOMMAND, NULL, NULL,
				   None_Receiver, NULL);
}

/*
 * Allow the table's owner to have our triggers on it, now and when it makes
 * partitions or restores a dump.
 */
void
protect_allow_triggers(Oid owner)
{
	static const char *const functions[] = {SEAL_FUNCTION, SEAL_GUARD_FUNCTION, CALL_TRIGGER_FUNCTION};
	Oid			schema = get_namespace_oid(ENVELOPE_SCHEMA, false);
	const char *role = quote_identifier(GetUserNameFromId(owner, false));
	OwnerScope	scope;

	if (superuser_arg(owner))
		return;
	store_lock_privileges();
	store_begin(&scope);
	for (int i = 0; i < lengthof(functions); i++)
	{
		if (object_aclcheck(ProcedureRelationId, protection_function(functions[i]),
							owner, ACL_EXECUTE) != ACLCHECK_OK)
			(void) store_execute(psprintf("GRANT EXECUTE ON FUNCTION %s.%s() TO %s",
										  ENVELOPE_SCHEMA, functions[i], role), 0, NULL);
	}
	if (object_aclcheck(NamespaceRelationId, schema, owner, ACL_USAGE) != ACLCHECK_OK)
		(void) store_execute(psprintf("GRANT USAGE ON SCHEMA %s TO %s",
									  ENVELOPE_SCHEMA, role), 0, NULL);
	store_end(&scope);
}

/* Become the table's owner, as far as it goes, until protect_end. */
void
protect_begin(const ProtectPlan *plan, OwnerScope *scope)
{
	store_begin_as(scope, plan->owner,
				   SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION |
				   SECURITY_NOFORCE_RLS);
	(void) utility_set_ours(true);
	/* Who changes catalogs needs a snapshot, and a procedure may have none. */
	EnsurePortalSnapshotExists();
}

void
protect_end(OwnerScope *scope)
{
	store_end(scope);
	(void) utility_set_ours(false);
}

/* The columns of a table that are protected already */
static void
plan_present_columns(ProtectPlan *plan, Relation rel)
{
	Protection *protection = protection_read(rel);

	if (protection == NULL)
		return;
	plan->is_protected = true;
	plan->live = protection->live;
	plan->words = protection->words;
	plan->tenant = get_attname(plan->relid, protection->tenant, false);
	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *at = &protection->columns[i];
		ProtectColumn *column = palloc0(sizeof(ProtectColumn));

		column->attnum = at->carrier;
		column->carrier = get_attname(plan->relid, at->carrier, false);
		column->sidecar = get_attname(plan->relid, at->sidecar, false);
		if (at->term)
			column->term = get_attname(plan->relid, at->term, false);
		column->context = at->context;
		column->not_null = at->not_null;
		column->clear = at->clear;
		plan->columns = lappend(plan->columns, column);
	}
}

/*
 * What is to be known of a table to change how it is protected.  rel is open
 * and locked; its partitions get the same lock.
 */
ProtectPlan *
protect_plan(Relation rel, LOCKMODE lock)
{
	ProtectPlan *plan = palloc0(sizeof(ProtectPlan));

	plan->relid = RelationGetRelid(rel);
	plan->owner = rel->rd_rel->relowner;
	plan->name = pstrdup(RelationGetRelationName(rel));
	plan->table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											 plan->name);
	plan->relids = find_all_inheritors(plan->relid, lock, NULL);
	plan_present_columns(plan, rel);
	return plan;
}

/* A column that is to be protected */
static void
plan_new_column(ProtectPlan *plan, Relation rel, char *name, bool searchable)
{
	ProtectColumn *column = palloc0(sizeof(ProtectColumn));
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *other = lfirst(cell);

		if (strcmp(other->carrier, name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 other->is_new ?
					 errmsg("column \"%s\" is named twice", name) :
					 errmsg("column \"%s\" of table \"%s\" is protected already",
							name, plan->name)));
		if (strcmp(other->sidecar, name) == 0 ||
			(other->term && strcmp(other->term, name) == 0))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("column \"%s\" of table \"%s\" holds what is sealed of column \"%s\"",
							name, plan->name, other->carrier)));
	}
	column->attnum = get_attnum(plan->relid, name);
	if (column->attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", name, plan->name)));
	column->carrier = name;
	column->sidecar = protect_column_name(name, SIDECAR_SUFFIX);
	column->term = searchable ? protect_column_name(name, TERM_SUFFIX) : NULL;
	column->context = psprintf("%s.%s.%s",
							   get_namespace_name(RelationGetNamespace(rel)),
							   plan->name, name);
	column->is_new = true;
	plan->columns = lappend(plan->columns, column);
}

/* Add the columns that a call names to a plan. */
static void
plan_new_columns(ProtectPlan *plan, Relation rel, char *tenant, List *names,
				 List *searchable)
{
	ListCell   *cell;

	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no column to protect was named")));
	foreach(cell, searchable)
	{
		if (!is_among(lfirst(cell), names))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("searchable column \"%s\" is not among the columns to protect",
							(char *) lfirst(cell))));
	}
	if (plan->is_protected && strcmp(plan->tenant, tenant) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is protected with tenant column \"%s\"",
						plan->name, plan->tenant)));
	plan->tenant = tenant;
	foreach(cell, names)
		plan_new_column(plan, rel, lfirst(cell), is_among(lfirst(cell), searchable));
}

/*
 * Add the columns that a call of a function with these arguments names; the last
 * one is whether to force it.
 */
void
protect_plan_call(FunctionCallInfo fcinfo, ProtectPlan *plan, Relation rel)
{
	plan->forced = PG_GETARG_BOOL(PG_NARGS() - 1);
	plan_new_columns(plan, rel, pstrdup(NameStr(*PG_GETARG_NAME(1))),
					 names_of(fcinfo, 2), names_of(fcinfo, 3));
}

/*
 * Refuse (55000) a call with the same arguments for a table that is being
 * protected live, where it names others than those that are under way.
 */
void
protect_plan_resume(FunctionCallInfo fcinfo, const ProtectPlan *plan)
{
	List	   *names = NIL;
	ListCell   *cell;

	foreach(cell, plan->columns)
		names = lappend(names, ((ProtectColumn *) lfirst(cell))->carrier);
	foreach(cell, names_of(fcinfo, 2))
	{
		if (!is_among(lfirst(cell), names))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" is being protected live without column \"%s\"",
							plan->name, (char *) lfirst(cell)),
					 errhint("CALL envelope_protect_live with the columns that it was begun with, and again for others when it is done.")));
	}
}

/*
 * Take the columns that a live protection has left in the clear for new ones;
 * false where there are none.
 */
bool
protect_plan_clear(ProtectPlan *plan)
{
	bool		result = false;
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		column->is_new = column->clear;
		result |= column->clear;
	}
	return result;
}

/*
 * envelope_protect(rel regclass, tenant_column name, columns name[],
 * searchable name[], force boolean)
 */
Datum
envelope_protect(PG_FUNCTION_ARGS)
{
	ProtectPlan *plan;
	Relation	rel;
	OwnerScope	scope;
	List	   *indexes;
	bool		samples;

	protect_require_preload();
	rel = owned_relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	plan = protect_plan(rel, AccessExclusiveLock);
	refuse_table(rel, plan);
	if (plan->live)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is being protected live", plan->name),
				 errhint("CALL envelope_protect_live again to finish it, or envelope_unprotect to go back.")));
	protect_plan_call(fcinfo, plan, rel);
	samples = samples_exist(plan);
	/* It gets new files; and the catalogs do if there are samples. */
	plan->words = samples ? NIL : samples_words(plan);
	relation_close(rel, NoLock);

	protect_allow_triggers(plan->owner);
	protect_begin(plan, &scope);
	term_index_check(plan);
	refuse_columns(plan);
	rewrite_check(plan);

	indexes = term_index_drop(plan, false);
	alter_add_columns(plan);
	alter_make_trigger(plan);
	rewrite_table(plan, false);
	alter_move_not_null(plan, false);
	alter_move_checks(plan, false);
	alter_add_checks(plan, true);
	term_index_make(plan, indexes, false);
	triggers_wrap(plan);
	term_leak_warn(plan);
	protect_end(&scope);
	if (samples)
		samples_forget();
	PG_RETURN_VOID();
}

/*
 * Take away what is beside columns that are not sealed yet.  True if there are
 * others.
 */
static bool
drop_clear_columns(ProtectPlan *plan)
{
	ProtectPlan clear = *plan;
	List	   *sealed = NIL;
	ListCell   *cell;

	clear.columns = NIL;
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->clear)
			clear.columns = lappend(clear.columns, column);
		else
			sealed = lappend(sealed, column);
	}
	if (clear.columns == NIL)
		return true;

	plan->columns = sealed;
	plan->words = NIL;
	if (sealed != NIL)
		alter_make_trigger(plan);
	else
	{
		triggers_unwrap(plan);
		alter_drop_trigger(plan);
	}
	alter_drop_columns(&clear);
	return sealed != NIL;
}

/* Open all rows and give the table back its columns, constraints and indexes. */
static void
unprotect_columns(ProtectPlan *plan)
{
	List	   *indexes = term_index_drop(plan, true);

	alter_drop_checks(plan);
	rewrite_table(plan, true);
	triggers_unwrap(plan);
	alter_drop_trigger(plan);
	alter_move_not_null(plan, true);
	alter_resume_not_null(plan, true);
	alter_move_checks(plan, true);
	alter_drop_columns(plan);
	term_index_make(plan, indexes, true);
}

/* envelope_unprotect(rel regclass) */
Datum
envelope_unprotect(PG_FUNCTION_ARGS)
{
	ProtectPlan *plan;
	Relation	rel;
	OwnerScope	scope;
	ListCell   *cell;

	shmem_require();
	rel = owned_relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	plan = protect_plan(rel, AccessExclusiveLock);
	if (!plan->is_protected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not protected", plan->name)));
	if (rel->rd_rel->relispartition)
		refuse_table(rel, plan);
	relation_close(rel, NoLock);
	foreach(cell, plan->columns)
		((ProtectColumn *) lfirst(cell))->is_new = true;

	protect_begin(plan, &scope);
	if (drop_clear_columns(plan))
		unprotect_columns(plan);
	protect_end(&scope);
	protect_progress_end(plan->relid);
	PG_RETURN_VOID();
}
