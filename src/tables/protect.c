/*-------------------------------------------------------------------------
 *
 * protect.c
 *	  envelope_protect: a table's columns become protected.
 *
 * Each column keeps its name and type and gets a sidecar, which holds what is
 * sealed; a searchable one gets a term too.  All is done in the caller's
 * transaction, under a lock that keeps everybody else out, as the table's
 * owner.  What would be refused is refused before anything is changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "compat.h"
#include "errors.h"
#include "keys/catalog.h"
#include "keys/store.h"
#include "shmem.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/value.h"

PG_FUNCTION_INFO_V1(envelope_protect);

/*
 * Throw (VE008) unless this server and the next one that is started preload
 * the module.
 */
static void
require_preload(void)
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

/* The name of a column beside another */
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

/* Execute a statement on the table, as its owner; it is freed. */
void
protect_execute(char *statement)
{
	int			rc = SPI_execute(statement, false, 0);

	if (rc < 0)
		elog(ERROR, "a statement on the table failed: %s", SPI_result_code_string(rc));
	pfree(statement);
}

/*
 * Allow the table's owner to have our trigger on it, now and when it makes
 * partitions or restores a dump.
 */
static void
allow_trigger(Oid owner)
{
	Oid			function = protection_function(SEAL_FUNCTION);
	Oid			schema = get_namespace_oid(ENVELOPE_SCHEMA, false);
	OwnerScope	scope;
	const char *role = quote_identifier(GetUserNameFromId(owner, false));

	store_begin(&scope);
	if (object_aclcheck(ProcedureRelationId, function, owner, ACL_EXECUTE) != ACLCHECK_OK)
		(void) store_execute(psprintf("GRANT EXECUTE ON FUNCTION %s.%s() TO %s",
									  ENVELOPE_SCHEMA, SEAL_FUNCTION, role), 0, NULL);
	if (object_aclcheck(NamespaceRelationId, schema, owner, ACL_USAGE) != ACLCHECK_OK)
		(void) store_execute(psprintf("GRANT USAGE ON SCHEMA %s TO %s",
									  ENVELOPE_SCHEMA, role), 0, NULL);
	store_end(&scope);
}

/* A table being protected */
typedef struct ProtectPlan
{
	Oid			relid;
	char	   *table;			/* quoted and qualified */
	char	   *tenant;
	List	   *columns;		/* of ProtectColumn */
} ProtectPlan;

typedef struct ProtectColumn
{
	char	   *carrier;
	char	   *sidecar;
	char	   *term;			/* NULL where it is not searchable */
	char	   *context;
	AttrNumber	attnum;
	bool		is_new;
	bool		not_null;
} ProtectColumn;

/* The columns that are protected already */
static void
plan_present_columns(ProtectPlan *plan, Relation rel)
{
	Protection *protection = protection_read(rel);

	if (protection == NULL)
		return;
	if (strcmp(get_attname(plan->relid, protection->tenant, false), plan->tenant) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is protected with tenant column \"%s\"",
						RelationGetRelationName(rel),
						get_attname(plan->relid, protection->tenant, false))));
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
		plan->columns = lappend(plan->columns, column);
	}
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
							name, RelationGetRelationName(rel))));
	}
	column->attnum = get_attnum(plan->relid, name);
	if (column->attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", name,
						RelationGetRelationName(rel))));
	column->carrier = name;
	column->sidecar = protect_column_name(name, SIDECAR_SUFFIX);
	column->term = searchable ? protect_column_name(name, TERM_SUFFIX) : NULL;
	column->context = psprintf("%s.%s.%s",
							   get_namespace_name(RelationGetNamespace(rel)),
							   RelationGetRelationName(rel), name);
	column->not_null = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1)->attnotnull;
	column->is_new = true;
	plan->columns = lappend(plan->columns, column);
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

/* The schema, quoted, of the functions that applications call */
static char *
extension_schema(void)
{
	return protect_query(pstrdup("SELECT pg_catalog.quote_ident(n.nspname)"
								 " FROM pg_catalog.pg_extension e"
								 " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
								 " WHERE e.extname = 'envelope'"));
}

/* Add the sidecars and what holds for them. */
static void
add_columns(const ProtectPlan *plan)
{
	const char *is_sealed = psprintf("%s.envelope_is_sealed", extension_schema());
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		const char *sidecar = quote_identifier(column->sidecar);

		if (!column->is_new)
			continue;
		protect_execute(psprintf("ALTER TABLE %s ADD COLUMN %s bytea,"
								 " ALTER COLUMN %s SET STORAGE EXTERNAL",
								 plan->table, sidecar, sidecar));
		if (column->term)
			protect_execute(psprintf("ALTER TABLE %s ADD COLUMN %s bytea",
									 plan->table, quote_identifier(column->term)));
		protect_execute(psprintf("ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s IS NULL),"
								 " ADD CONSTRAINT %s CHECK (%s(%s))",
								 plan->table,
								 quote_identifier(protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)),
								 quote_identifier(column->carrier),
								 sidecar, is_sealed, sidecar));
	}
}

/*
 * Move NOT NULL from carriers to their sidecars, with the name it has on servers
 * where it has one.
 */
static void
move_not_null(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		char	   *name;

		if (!column->is_new || !column->not_null)
			continue;
		name = protect_query(psprintf("SELECT pg_catalog.quote_ident(conname)"
									  " FROM pg_catalog.pg_constraint"
									  " WHERE conrelid = %u AND contype = 'n' AND conkey = '{%d}'",
									  plan->relid, column->attnum));
		protect_execute(psprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
								 plan->table, quote_identifier(column->carrier)));
		protect_execute(name ?
						psprintf("ALTER TABLE %s ADD CONSTRAINT %s NOT NULL %s",
								 plan->table, name,
								 quote_identifier(column->sidecar)) :
						psprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
								 plan->table, quote_identifier(column->sidecar)));
	}
}

/* Make the trigger for all columns, in place of one that is there. */
static void
make_trigger(const ProtectPlan *plan, bool replace)
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
	if (replace)
		protect_execute(psprintf("DROP TRIGGER %s ON %s", SEAL_TRIGGER, plan->table));
	protect_execute(psprintf("CREATE TRIGGER %s BEFORE INSERT OR UPDATE ON %s"
							 " FOR EACH ROW EXECUTE FUNCTION %s.%s(%s)",
							 SEAL_TRIGGER, plan->table, ENVELOPE_SCHEMA,
							 SEAL_FUNCTION, args.data));
	protect_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
							 plan->table, SEAL_TRIGGER));
}

/* Refuse (0A000) a table that has rows. */
static void
refuse_rows(Relation rel)
{
	TableScanDesc scan;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	scan = table_beginscan(rel, snapshot, 0, NULL);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" has rows", RelationGetRelationName(rel))));
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * envelope_protect(rel regclass, tenant_column name, columns name[],
 * searchable name[])
 */
Datum
envelope_protect(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	List	   *names = names_of(fcinfo, 2);
	List	   *searchable = names_of(fcinfo, 3);
	ProtectPlan plan = {0};
	Relation	rel;
	bool		is_protected;
	OwnerScope	scope;
	ListCell   *cell;

	require_preload();
	rel = relation_open(relid, AccessExclusiveLock);
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));

	plan.relid = relid;
	plan.table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											RelationGetRelationName(rel));
	plan.tenant = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	is_protected = protection_trigger(rel) != NULL;
	refuse_rows(rel);
	plan_present_columns(&plan, rel);
	foreach(cell, names)
		plan_new_column(&plan, rel, lfirst(cell), is_among(lfirst(cell), searchable));

	allow_trigger(rel->rd_rel->relowner);
	store_begin_as(&scope, rel->rd_rel->relowner,
				   SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	relation_close(rel, NoLock);
	add_columns(&plan);
	move_not_null(&plan);
	make_trigger(&plan, is_protected);
	store_end(&scope);
	PG_RETURN_VOID();
}
