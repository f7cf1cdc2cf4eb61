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
 * Of a partitioned table the partitions' indexes are built so.  When the table's
 * own is then made, under the lock, PostgreSQL finds them, and makes them its parts.
 * While the two are not yet connected a unique one could not be made an arbiter of
 * ON CONFLICT (arbiters.c), so that the table must have no unique index on such a
 * column.
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
#include "executor/spi.h"
#include "nodes/makefuncs.h"
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
look_for(LiveIndex *index)
{
	char	   *valid = protect_query(psprintf("SELECT i.indisvalid FROM pg_catalog.pg_index i"
											   " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
											   " WHERE i.indrelid = %u AND c.relname = %s",
											   index->relid, quote_literal_cstr(index->name)));

	index->exists = valid != NULL;
	index->valid = valid != NULL && strcmp(valid, "t") == 0;
}

/* The indexes that one table, or partition, is to have */
static List *
list_of(const ProtectPlan *plan, Oid relid, List *moved)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, moved)
	{
		LiveIndex  *index = palloc0(sizeof(LiveIndex));

		index->relid = relid;
		index->replaces = lfirst(cell);
		index->part = term_index_part_of(index->replaces->parts, relid);
		if (index->part == NULL && relid != plan->relid)
			continue;
		index->shown = index->part ? index->part->name : index->replaces->name;
		index->name = protect_column_name(index->shown, TERM_SUFFIX);
		result = lappend(result, index);
	}
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);
		LiveIndex  *index;

		if (!column->is_new || column->term == NULL || is_in_any(plan, column, moved))
			continue;
		index = palloc0(sizeof(LiveIndex));
		index->relid = relid;
		index->column = column;
		index->name = index->shown = makeObjectName(get_rel_name(relid), column->term, "idx");
		result = lappend(result, index);
	}
	return result;
}

static bool
has_name(const LiveIndex *index, const LiveIndex *other)
{
	return strcmp(index->name, other->name) == 0 &&
		get_rel_namespace(index->relid) == get_rel_namespace(other->relid);
}

/* Names that are long may have become the same when they got their endings. */
static void
tell_names_apart(List *indexes)
{
	ListCell   *cell;
	ListCell   *lc;
	int			number = 0;

	foreach(cell, indexes)
	{
		LiveIndex  *index = lfirst(cell);

		foreach(lc, indexes)
		{
			if (lfirst(lc) == index)
				break;
			if (has_name(index, lfirst(lc)))
			{
				index->name = makeObjectName(index->shown, psprintf("%d", ++number), "term");
				break;
			}
		}
	}
}

/*
 * The indexes on terms that are to be built for new columns of a plan: a list of
 * LiveIndex.  Between protect_begin and protect_end.
 */
List *
term_index_live_list(const ProtectPlan *plan)
{
	List	   *moved = term_index_note(plan, plan->relid, false, AccessShareLock);
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			result = list_concat(result, list_of(plan, lfirst_oid(cell), moved));
	}
	tell_names_apart(result);
	foreach(cell, result)
		look_for(lfirst(cell));
	return result;
}

static char *
qualified_name(const LiveIndex *index)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(index->relid)),
									  index->name);
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
		{"i.indisunique AND c.relkind = 'I'", "Index \"%s\" is unique, and the table is partitioned."},
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

/* Refuse indexes that partitions have for themselves: they are not looked for. */
static void
refuse_own_of_partitions(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		Oid			relid = lfirst_oid(cell);
		List	   *moved = relid == plan->relid ? NIL :
			term_index_note(plan, relid, false, AccessShareLock);

		if (moved)
			refuse(plan, psprintf("Index \"%s\" is only that of partition \"%s\".",
								  ((MovedIndex *) linitial(moved))->name, get_rel_name(relid)));
	}
}

/*
 * Refuse (0A000) a table whose indexes cannot be moved to terms while it is in
 * use.  Between protect_begin and protect_end, after term_index_check.
 */
void
term_index_live_check(const ProtectPlan *plan)
{
	List	   *names = NIL;
	ListCell   *cell;

	refuse_own_of_partitions(plan);
	foreach(cell, term_index_live_list(plan))
	{
		LiveIndex  *index = lfirst(cell);
		char	   *trouble = index->replaces ? trouble_with(plan, index) : NULL;
		String	   *name = makeString(qualified_name(index));

		if (trouble)
			refuse(plan, trouble);
		if (OidIsValid(get_relname_relid(index->name, get_rel_namespace(index->relid))) ||
			list_member(names, name))
			refuse(plan, psprintf("An index \"%s\" would have to be made, but the name is taken.",
								  index->name));
		names = lappend(names, name);
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

/* Is an index one of those that are to be built, and valid? */
static bool
is_wanted(List *indexes, const char *name)
{
	ListCell   *cell;

	foreach(cell, indexes)
	{
		LiveIndex  *index = lfirst(cell);

		if (index->valid && strcmp(qualified_name(index), name) == 0)
			return true;
	}
	return false;
}

/* The names of terms that are new, as an SQL array */
static char *
new_terms(const ProtectPlan *plan)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	appendStringInfoString(&names, "ARRAY[");
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new && column->term)
			appendStringInfo(&names, "%s%s", names.data[names.len - 1] == '[' ? "" : ", ",
							 quote_literal_cstr(column->term));
	}
	appendStringInfoString(&names, "]::pg_catalog.name[]");
	return names.data;
}

/*
 * What is left of indexes whose building has ended in its midst, or that were built
 * for what has another name by now, or is gone: their names, quoted and qualified.
 * Nobody else makes indexes on terms that are new.
 */
List *
term_index_live_left(const ProtectPlan *plan)
{
	List	   *indexes = term_index_live_list(plan);
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		protect_execute(psprintf("SELECT n.nspname, c.relname FROM pg_catalog.pg_index i"
								 " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
								 " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
								 " WHERE i.indrelid = %u AND EXISTS (SELECT FROM pg_catalog.pg_attribute a"
								 " WHERE a.attrelid = i.indrelid AND a.attname = ANY (%s)"
								 " AND a.attnum = ANY (i.indkey::pg_catalog.int2[]))",
								 lfirst_oid(cell), new_terms(plan)));
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			char	   *name = quote_qualified_identifier(SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1),
														  SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2));

			if (!is_wanted(indexes, name))
				result = lappend(result, name);
		}
	}
	return result;
}

/* Drop that. */
void
term_index_live_drop_left(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, term_index_live_left(plan))
		protect_execute(psprintf("DROP INDEX %s", (char *) lfirst(cell)));
}

/* The statement that builds an index, CONCURRENTLY */
IndexStmt *
term_index_live_statement(const ProtectPlan *plan, const LiveIndex *index)
{
	IndexStmt  *stmt = index->replaces ?
		term_index_statement(plan, index->replaces, index->part) :
		term_index_own_statement(plan, index->column, index->name);

	stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(index->relid)),
								  get_rel_name(index->relid), -1);
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

	term_index_live_drop_left(plan);
	if (get_rel_relkind(plan->relid) == RELKIND_PARTITIONED_TABLE)
	{
		term_index_make(plan, term_index_drop(plan, false), false);
		return;
	}
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
