/*-------------------------------------------------------------------------
 *
 * protect_live.c
 *	  envelope_protect_live: protecting a large table while it is in use.
 *
 * The table is locked for moments only:
 *
 *	1. All rows are looked at: can they be sealed?
 *	2. Sidecars and the trigger are made, with constraints that are not
 *	   validated.  What is written from then on is sealed.  The trigger says
 *	   "live": a value that is not in the sidecar is still in the carrier, and is
 *	   read from there.
 *	3. Rows are sealed in batches, by updates that change nothing else, first
 *	   those that nobody has locked.
 *	4. The constraints are validated, which proves that no carrier holds a value.
 *	5. The trigger is made anew, without "live".
 *
 * Where it stands is in the catalogs: whoever calls it again after an error or a
 * crash goes on with step 3.  envelope_unprotect leads back at any time.
 *
 * Updates leave dead rows, which hold plaintext until the table is rewritten.  So
 * the trigger's arguments name the files that it had, by which doctor knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "lifecycle/steps.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/triggers.h"

PG_FUNCTION_INFO_V1(envelope_protect_live);

/* As many rows are taken to be on a page when batches are cut */
#define ROWS_PER_PAGE	50

/* The columns to be protected have no indexes: they would keep the values. */
static void
refuse_indexes(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		char	   *index;

		if (!column->is_new)
			continue;
		index = protect_query(psprintf("SELECT i.indexrelid::pg_catalog.regclass"
									   " FROM pg_catalog.pg_index i"
									   " JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid"
									   " WHERE i.indrelid = %u AND a.attname = %s"
									   " AND a.attnum = ANY (i.indkey::pg_catalog.int2[])",
									   plan->relid, quote_literal_cstr(column->carrier)));
		if (index)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of table \"%s\" cannot be protected live",
							column->carrier, plan->name),
					 errdetail("Index \"%s\" holds its values.", index),
					 errhint("Drop the index and make it again afterwards, both CONCURRENTLY; or use envelope_protect, which moves it.")));
	}
}

/* Step 1, and what of it has to be done again under the lock */
static void
check_table(ProtectPlan *plan, bool rows)
{
	OwnerScope	scope;

	protect_begin(plan, &scope);
	term_index_check(plan);
	refuse_columns(plan);
	refuse_indexes(plan);
	if (rows)
		rewrite_check(plan);
	protect_end(&scope);
}

/* Step 2.  Carriers are no longer NOT NULL; the trigger's words keep that. */
static void
begin_table(ProtectPlan *plan)
{
	ListCell   *cell;
	OwnerScope	scope;

	protect_allow_triggers(plan->owner);
	plan->live = true;
	plan->words = list_make1(SEAL_ARG_LIVE);
	protect_begin(plan, &scope);
	alter_add_columns(plan);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new)
			plan->words = list_concat(plan->words, alter_drop_not_null(plan, column));
	}
	alter_move_checks(plan, false);
	alter_add_checks(plan, false);
	alter_make_trigger(plan);
	triggers_wrap(plan);
	protect_end(&scope);
}

/* The table, as it is now; throws where a protection is not under way any more */
static ProtectPlan *
plan_again(Oid relid, LOCKMODE lock)
{
	Relation	rel = owned_relation_open(relid, lock);
	ProtectPlan *plan = protect_plan(rel, lock);

	table_close(rel, NoLock);
	if (!plan->live)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not being protected any more", plan->name)));
	return plan;
}

/* Seal the rows of some pages of one table, unless others have them locked. */
static uint64
seal_pages(const ProtectPlan *plan, Oid relid, BlockNumber from, BlockNumber to,
		   bool skip_locked)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												   get_rel_name(relid));
	StringInfoData assignments;
	StringInfoData condition;
	OwnerScope	scope;
	ListCell   *cell;
	uint64		done;

	initStringInfo(&assignments);
	initStringInfo(&condition);
	foreach(cell, plan->columns)
	{
		const char *name = quote_identifier(((ProtectColumn *) lfirst(cell))->carrier);

		appendStringInfo(&assignments, "%s%s = %s", assignments.len ? ", " : "", name, name);
		appendStringInfo(&condition, "%s%s IS NOT NULL", condition.len ? " OR " : "", name);
	}

	protect_begin(plan, &scope);
	(void) set_config_option("envelope.stored_form", "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("session_replication_role", "replica", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	protect_execute(psprintf("UPDATE ONLY %s SET %s WHERE ctid = ANY (ARRAY("
							 "SELECT ctid FROM ONLY %s WHERE (%s)"
							 " AND ctid >= '(%u,0)' AND ctid < '(%u,0)' FOR UPDATE%s))",
							 table, assignments.data, table, condition.data, from, to,
							 skip_locked ? " SKIP LOCKED" : ""));
	done = SPI_processed;
	protect_end(&scope);
	return done;
}

static BlockNumber
count_pages(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	table_close(rel, NoLock);
	return pages;
}

/* Step 3, for one table that has rows of its own; returns how many were sealed. */
static uint64
seal_rows(Oid relid, Oid leaf, int batch_pages, bool skip_locked, uint64 done)
{
	BlockNumber pages = count_pages(leaf);

	steps_commit();
	for (BlockNumber page = 0; page < pages; page += batch_pages)
	{
		ProtectPlan *plan = plan_again(relid, RowExclusiveLock);
		uint64		before = done / 100000;

		done += seal_pages(plan, leaf, page, page + batch_pages, skip_locked);
		steps_commit();
		if (done / 100000 != before)
			ereport(NOTICE, (errmsg("sealed " UINT64_FORMAT " rows", done)));
	}
	return done;
}

/* A constraint that a sidecar is not null, which spares SET NOT NULL a scan */
static char *
not_null_check(const ProtectColumn *column)
{
	return protect_column_name(column->carrier, NOT_NULL_SUFFIX);
}

/* Step 4, in a transaction for each constraint */
static void
validate(Oid relid)
{
	ProtectPlan *plan = plan_again(relid, AccessShareLock);
	ListCell   *cell;
	OwnerScope	scope;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		protect_begin(plan, &scope);
		alter_drop_constraint(plan, not_null_check(column));
		if (column->not_null)
			protect_execute(psprintf("ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s IS NOT NULL) NOT VALID",
									 plan->table, quote_identifier(not_null_check(column)),
									 quote_identifier(column->sidecar)));
		protect_end(&scope);
		steps_commit();

		protect_begin(plan, &scope);
		protect_execute(psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s, VALIDATE CONSTRAINT %s",
								 plan->table,
								 quote_identifier(protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)),
								 quote_identifier(column->sidecar)));
		if (column->not_null)
			protect_execute(psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s",
									 plan->table, quote_identifier(not_null_check(column))));
		protect_end(&scope);
		steps_commit();
	}
}

/* The words that name the files of a table and its partitions */
static List *
file_words(const ProtectPlan *plan)
{
	List	   *words = NIL;
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			words = lappend(lappend(words, SEAL_ARG_FILE),
							psprintf("%u", rel->rd_rel->relfilenode));
		table_close(rel, NoLock);
	}
	return words;
}

/* Step 5 */
static void
finish_table(Oid relid)
{
	ProtectPlan *plan = plan_again(relid, AccessExclusiveLock);
	ListCell   *cell;
	ListCell   *lc;
	OwnerScope	scope;

	protect_begin(plan, &scope);
	alter_set_not_null(plan, false);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		alter_drop_constraint(plan, not_null_check(column));
		foreach(lc, plan->relids)
			RemoveStatistics(lfirst_oid(lc), get_attnum(lfirst_oid(lc), column->carrier));
	}
	plan->live = false;
	plan->words = file_words(plan);
	alter_make_trigger(plan);
	protect_end(&scope);
}

/* Begin, or find what was begun; returns the partitions that have rows. */
static List *
begin_or_resume(FunctionCallInfo fcinfo, Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	Relation	rel = owned_relation_open(relid, AccessShareLock);
	ProtectPlan *plan = protect_plan(rel, AccessShareLock);
	List	   *leaves = NIL;
	ListCell   *cell;

	refuse_table(rel, plan);
	if (!plan->live)
	{
		protect_plan_call(fcinfo, plan, rel);
		table_close(rel, NoLock);
		check_table(plan, true);
		steps_commit();

		rel = owned_relation_open(relid, AccessExclusiveLock);
		MemoryContextSwitchTo(context);
		plan = protect_plan(rel, AccessExclusiveLock);
		refuse_table(rel, plan);
		protect_plan_call(fcinfo, plan, rel);
		table_close(rel, NoLock);
		check_table(plan, false);
		begin_table(plan);
	}
	else
		table_close(rel, NoLock);
	foreach(cell, plan->relids)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			leaves = lappend_oid(leaves, lfirst_oid(cell));
	}
	steps_commit();
	return leaves;
}

/*
 * CALL envelope_protect_live(rel regclass, tenant_column name, columns name[],
 * searchable name[], batch_size integer)
 */
Datum
envelope_protect_live(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int			batch_pages;
	List	   *leaves;
	ListCell   *cell;
	uint64		done = 0;

	for (int i = 0; i < 5; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("no argument may be null")));
	}
	relid = PG_GETARG_OID(0);
	if (PG_GETARG_INT32(4) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the size of a batch must be positive")));
	batch_pages = Max(1, PG_GETARG_INT32(4) / ROWS_PER_PAGE);

	protect_require_preload();
	steps_begin(fcinfo, "envelope_protect_live");
	leaves = begin_or_resume(fcinfo, relid);
	foreach(cell, leaves)
		done = seal_rows(relid, lfirst_oid(cell), batch_pages, true, done);
	foreach(cell, leaves)
		done = seal_rows(relid, lfirst_oid(cell), batch_pages, false, done);
	validate(relid);
	finish_table(relid);
	ereport(NOTICE,
			(errmsg("sealed " UINT64_FORMAT " rows", done),
			 errdetail("Dead rows, old WAL, backups and standbys may hold them in plaintext still."),
			 errhint("Rewrite the table with VACUUM FULL or pg_repack; envelope_doctor() asks for it until then.")));
	steps_end();
	PG_RETURN_VOID();
}
