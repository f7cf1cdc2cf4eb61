/*-------------------------------------------------------------------------
 *
 * term_index_parts.c
 *	  What partitions have of an index of their partitioned table.
 *
 * When such an index is made again PostgreSQL makes its parts, each with a name
 * that it finds and with what the index has.  Then each gets back the name that it
 * had, and its options, tablespace, comment and CLUSTER mark.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/tablespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "tables/protect.h"

/* The options of an index, as in SET (...) */
#define OPTIONS_OF_C	"(SELECT pg_catalog.string_agg(pg_catalog.format('%%I = %%L', o.option_name, o.option_value)," \
						" ', ') FROM pg_catalog.pg_options_to_table(c.reloptions) o)"

/* The parts of a partitioned index: what each is called, and is in its own right */
List *
term_index_list_parts(Oid index, bool is_constraint)
{
	List	   *parts = NIL;

	protect_execute(psprintf("SELECT i.indrelid, c.relname, pg_catalog.pg_get_indexdef(c.oid), "
							 OPTIONS_OF_C ", %s, s.spcname, i.indisclustered, c.relkind = 'I'"
							 " FROM pg_catalog.pg_partition_tree(%u) t"
							 " JOIN pg_catalog.pg_class c ON c.oid = t.relid"
							 " JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid"
							 " LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace"
							 " WHERE t.level > 0",
							 is_constraint ?
							 "(SELECT pg_catalog.obj_description(k.oid, 'pg_constraint')"
							 " FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid AND k.conrelid = i.indrelid)" :
							 "pg_catalog.obj_description(c.oid, 'pg_class')", index));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MovedPart  *part = palloc(sizeof(MovedPart));
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		part->relid = atooid(SPI_getvalue(tuple, desc, 1));
		part->name = SPI_getvalue(tuple, desc, 2);
		part->index_definition = SPI_getvalue(tuple, desc, 3);
		part->options = SPI_getvalue(tuple, desc, 4);
		part->comment = SPI_getvalue(tuple, desc, 5);
		part->tablespace = SPI_getvalue(tuple, desc, 6);
		part->is_clustered = strcmp(SPI_getvalue(tuple, desc, 7), "t") == 0;
		part->has_parts = strcmp(SPI_getvalue(tuple, desc, 8), "t") == 0;
		parts = lappend(parts, part);
	}
	return parts;
}

/* The part of a partition among others; NULL where there is none */
MovedPart *
term_index_part_of(List *parts, Oid relid)
{
	ListCell   *cell;

	foreach(cell, parts)
	{
		MovedPart  *part = lfirst(cell);

		if (part->relid == relid)
			return part;
	}
	return NULL;
}

static void
rename_part(const MovedPart *part, const char *from, const char *to)
{
	protect_execute(psprintf("ALTER INDEX %s RENAME TO %s",
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(part->relid)), from),
							 quote_identifier(to)));
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/*
 * Give a part of an index that was made again the options that the old one had.
 * PostgreSQL cannot give an index any that has parts itself: it keeps those of the
 * index it is a part of.
 */
static void
set_options(const char *index, const MovedPart *was, const MovedPart *is)
{
	if (is->has_parts || same_text(was->options, is->options))
		return;
	if (is->options)
		protect_execute(psprintf("ALTER INDEX %s RESET (%s)", index,
								 protect_query(psprintf("SELECT pg_catalog.string_agg(pg_catalog.quote_ident(o.option_name), ', ')"
														" FROM pg_catalog.pg_class c, pg_catalog.pg_options_to_table(c.reloptions) o"
														" WHERE c.oid = %s::pg_catalog.regclass",
														quote_literal_cstr(index)))));
	if (was->options)
		protect_execute(psprintf("ALTER INDEX %s SET (%s)", index, was->options));
}

/* The same for its tablespace */
static void
set_tablespace(const char *index, const MovedPart *was, const MovedPart *is)
{
	char	   *tablespace = was->tablespace;

	if (same_text(was->tablespace, is->tablespace))
		return;
	if (tablespace == NULL)
		tablespace = get_tablespace_name(MyDatabaseTableSpace);
	protect_execute(psprintf("ALTER INDEX %s SET TABLESPACE %s", index,
							 quote_identifier(tablespace)));
}

/* Give a part of an index that was made again what the old one had for itself. */
static void
describe_part(const MovedIndex *moved, const MovedPart *was, const MovedPart *is)
{
	char	   *index = quote_qualified_identifier(get_namespace_name(get_rel_namespace(was->relid)),
												   was->name);
	char	   *table = protect_table_name(was->relid);

	set_options(index, was, is);
	set_tablespace(index, was, is);
	if (was->comment)
		protect_execute(moved->is_constraint ?
						psprintf("COMMENT ON CONSTRAINT %s ON %s IS %s", quote_identifier(was->name),
								 table, quote_literal_cstr(was->comment)) :
						psprintf("COMMENT ON INDEX %s IS %s", index, quote_literal_cstr(was->comment)));
	if (was->is_clustered)
		protect_execute(psprintf("ALTER TABLE %s CLUSTER ON %s", table, quote_identifier(was->name)));
}

/*
 * Make the parts of an index that was made again what they were.  One may have the
 * name that another wants, so that all give theirs up first.
 */
void
term_index_describe_parts(const MovedIndex *moved)
{
	List	   *parts = term_index_list_parts(get_relname_relid(moved->name, get_rel_namespace(moved->relid)),
											  moved->is_constraint);
	ListCell   *cell;

	foreach(cell, parts)
	{
		MovedPart  *is = lfirst(cell);
		char	   *between = psprintf("envelope_part_%u", is->relid);

		if (term_index_part_of(moved->parts, is->relid) == NULL)
			continue;
		rename_part(is, is->name, between);
		is->name = between;
	}
	foreach(cell, parts)
	{
		MovedPart  *is = lfirst(cell);
		MovedPart  *was = term_index_part_of(moved->parts, is->relid);

		if (was == NULL)
			continue;
		rename_part(is, is->name, was->name);
		describe_part(moved, was, is);
	}
}
