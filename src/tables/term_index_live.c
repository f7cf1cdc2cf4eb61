/*-------------------------------------------------------------------------
 *
 * term_index_live.c
 *	  Indexes on terms that are built while a table is in use.
 *
 * While a column that is being protected is in the clear yet, and has its terms
 * beside it, an index on terms is built for each index that it is in, under
 * another name, and one for each searchable column that is in none.  They are
 * built by CREATE INDEX CONCURRENTLY, which has to be done elsewhere
 * (lifecycle/index_builder.c).  Until all are valid the old ones stay, and do
 * what they did: a unique constraint is never without an index.  Then, in one
 * transaction, each new index takes the place and the name of the old one.
 *
 * What the names will be can be told from those that are there, so that whoever
 * goes on after a crash finds what has been built.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "tables/protect.h"
#include "tables/protection.h"

/* Is the column among those of an index on the table's columns? */
static bool
is_in_index(const ProtectPlan *plan, const ProtectColumn *column, const MovedIndex *moved)
{
	return protect_query(psprintf("SELECT 1 FROM pg_catalog.pg_index i"
								  " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
								  " WHERE i.indrelid = %u AND c.relname = %s"
								  " AND %d = ANY (i.indkey::pg_catalog.int2[])",
								  plan->relid, quote_literal_cstr(moved->name),
								  column->attnum)) != NULL;
}

static bool
is_in_any(const ProtectPlan *plan, const ProtectColumn *column, List *moved)
{
	ListCell   *cell;

	foreach(cell, moved)
	{
		if (is_in_index(plan, column, lfirst(cell)))
			return true;
	}
	return false;
}

/* Find out whether an index is there, and valid. */
static void
look_for(const ProtectPlan *plan, LiveIndex *index)
{
	char	   *valid = protect_query(psprintf("SELECT i.indisvalid FROM pg_catalog.pg_index i"
											   " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
											   " WHERE i.indrelid = %u AND c.relname = %s",
											   plan->relid, quote_literal_cstr(index->name)));

	index->exists = valid != NULL;
	index->valid = valid != NULL && strcmp(valid, "t") == 0;
}

/*
 * The indexes on terms that new columns of a plan are to have: a list of
 * LiveIndex.  Between protect_begin and protect_end.
 */
List *
term_index_live_list(const ProtectPlan *plan)
{
	List	   *moved = term_index_note(plan, plan->relid, false, AccessShareLock);
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, moved)
	{
		LiveIndex  *index = palloc0(sizeof(LiveIndex));

		index->replaces = lfirst(cell);
		index->shown = index->replaces->name;
		index->name = protect_column_name(index->replaces->name, TERM_SUFFIX);
		look_for(plan, index);
		result = lappend(result, index);
	}
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		LiveIndex  *index;

		if (!column->is_new || column->term == NULL || is_in_any(plan, column, moved))
			continue;
		index = palloc0(sizeof(LiveIndex));
		index->column = column;
		index->name = index->shown = makeObjectName(plan->name, column->term, "idx");
		look_for(plan, index);
		result = lappend(result, index);
	}
	return result;
}

pg_noreturn static void
refuse(const ProtectPlan *plan, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table \"%s\" cannot be protected live", plan->name),
			 errdetail("%s", detail),
			 errhint("Change that, or use envelope_protect.")));
}

/* Something about an index that is in the way; NULL where nothing is */
static char *
trouble_with(const ProtectPlan *plan, const LiveIndex *index)
{
	static const char *const rules[][2] = {
		{"NOT i.indisvalid", "Index \"%s\" is not valid."},
		{"i.indisprimary", "Index \"%s\" is the primary key's."},
		{"NOT i.indimmediate", "Constraint \"%s\" is deferrable."},
		{"EXISTS (SELECT FROM pg_catalog.pg_constraint k"
			" JOIN pg_catalog.pg_depend d ON d.refobjid = k.oid"
			" AND d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass"
		" WHERE k.conindid = i.indexrelid AND d.deptype = 'n')", "Other objects depend on constraint \"%s\"."},
	};

	for (int i = 0; i < lengthof(rules); i++)
	{
		if (protect_query(psprintf("SELECT 1 FROM pg_catalog.pg_index i"
								   " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
								   " WHERE i.indrelid = %u AND c.relname = %s AND %s",
								   plan->relid, quote_literal_cstr(index->replaces->name),
								   rules[i][0])))
			return psprintf(rules[i][1], index->replaces->name);
	}
	return NULL;
}

/*
 * Refuse (0A000) a table whose indexes cannot be moved to terms while it is in
 * use.  Between protect_begin and protect_end, after term_index_check.
 */
void
term_index_live_check(const ProtectPlan *plan)
{
	List	   *indexes;
	List	   *names = NIL;
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new && column->term && list_length(plan->relids) +
			(get_rel_relkind(plan->relid) == RELKIND_PARTITIONED_TABLE) > 1)
			refuse(plan, psprintf("It is partitioned, and column \"%s\" is searchable or has an index.",
								  column->carrier));
	}
	indexes = term_index_live_list(plan);
	foreach(cell, indexes)
	{
		LiveIndex  *index = lfirst(cell);
		char	   *trouble = index->replaces ? trouble_with(plan, index) : NULL;

		if (trouble)
			refuse(plan, trouble);
		if (OidIsValid(get_relname_relid(index->name, get_rel_namespace(plan->relid))) ||
			list_member(names, makeString(index->name)))
			refuse(plan, psprintf("An index \"%s\" would have to be made, but the name is taken.",
								  index->name));
		names = lappend(names, makeString(index->name));
	}
}

/* Are all indexes there?  Between protect_begin and protect_end. */
bool
term_index_live_ready(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, term_index_live_list(plan))
	{
		if (!((LiveIndex *) lfirst(cell))->valid)
			return false;
	}
	return true;
}

/* Was something left of indexes whose building has ended in its midst? */
bool
term_index_live_left(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, term_index_live_list(plan))
	{
		LiveIndex  *index = lfirst(cell);

		if (index->exists && !index->valid)
			return true;
	}
	return false;
}

/* Drop that. */
void
term_index_live_drop_left(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, term_index_live_list(plan))
	{
		LiveIndex  *index = lfirst(cell);

		if (index->exists && !index->valid)
			protect_execute(psprintf("DROP INDEX %s",
									 quote_qualified_identifier(get_namespace_name(get_rel_namespace(plan->relid)),
																index->name)));
	}
}

/* The statement that builds an index, CONCURRENTLY */
IndexStmt *
term_index_live_statement(const ProtectPlan *plan, const LiveIndex *index)
{
	IndexStmt  *stmt = index->replaces ?
		term_index_statement(plan, index->replaces) :
		term_index_own_statement(plan, index->column, index->name);

	stmt->idxname = index->name;
	stmt->concurrent = true;
	return stmt;
}

/*
 * Put the indexes on terms, which are valid, in the place of the others.  The
 * table is locked against everybody.
 */
void
term_index_live_swap(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, term_index_live_list(plan))
	{
		LiveIndex  *index = lfirst(cell);
		const MovedIndex *moved = index->replaces;

		if (moved == NULL)
		{
			term_index_describe_own(plan, index->name);
			continue;
		}
		term_index_drop_moved(moved);
		protect_execute(psprintf("ALTER INDEX %s RENAME TO %s",
								 quote_qualified_identifier(moved->schema, index->name),
								 quote_identifier(moved->name)));
		if (moved->is_constraint)
			protect_execute(psprintf("ALTER TABLE %s ADD CONSTRAINT %s UNIQUE USING INDEX %s",
									 plan->table, quote_identifier(moved->name),
									 quote_identifier(moved->name)));
		term_index_describe(moved);
	}
}
