/*-------------------------------------------------------------------------
 *
 * term_index.c
 *	  Indexes on protected columns become indexes on their terms.
 *
 * A term is equal where the tenant and the value are, and that is all that it
 * says.  So a unique index that includes the tenant column is as unique over
 * the term, and any B-tree or hash index on the column can be used for equality.
 * Such indexes are dropped and made again, with their name, options and comment,
 * with the term in place of the column.  Everything else is refused by name.
 *
 * A searchable column without an index gets one on tenant and term.  It has a
 * comment, by which it is known when the column is unprotected.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/value.h"

/* The comment of an index that nobody but us has asked for */
#define OWN_INDEX_COMMENT	"made by envelope_protect"

/* A column of a table being looked at */
typedef struct IndexedColumn
{
	ProtectPlan *plan;
	ProtectColumn *column;
	AttrNumber	attnum;			/* in this table */
	AttrNumber	tenant;
	Form_pg_attribute attr;
} IndexedColumn;

pg_noreturn static void
refuse(const IndexedColumn *at, Relation index, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" of table \"%s\" cannot be protected",
					at->column->carrier, at->plan->name),
			 errdetail("Index \"%s\" %s.", RelationGetRelationName(index), reason),
			 hint ? errhint("%s", hint) : 0));
}

/* Where among an index's columns a column is; -1 where it is not */
static int
position_of(Relation index, AttrNumber attnum)
{
	for (int i = 0; i < index->rd_index->indnatts; i++)
	{
		if (index->rd_index->indkey.values[i] == attnum)
			return i;
	}
	return -1;
}

static bool
is_in_expressions(Relation index, AttrNumber attnum)
{
	Bitmapset  *attributes = NULL;

	pull_varattnos((Node *) RelationGetIndexExpressions(index), 1, &attributes);
	pull_varattnos((Node *) RelationGetIndexPredicate(index), 1, &attributes);
	return bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, attributes) ||
		bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes);
}

/* Refuse (0A000) an index on a column that cannot be one on its term. */
static void
check_index(IndexedColumn *at, Relation index)
{
	Form_pg_index form = index->rd_index;
	int			position = position_of(index, at->attnum);
	int			tenant_at = position_of(index, at->tenant);
	const char *unsearchable;

	if (is_in_expressions(index, at->attnum))
		refuse(at, index, "uses it in an expression or predicate", "Drop the index.");
	if (position < 0)
		return;
	if (form->indisexclusion)
		refuse(at, index, "belongs to an exclusion constraint", "Drop the constraint.");
	if (index->rd_rel->relispartition &&
		OidIsValid(get_index_constraint(RelationGetRelid(index))) &&
		!OidIsValid(get_index_constraint(get_partition_parent(RelationGetRelid(index), false))))
		refuse(at, index, "is that of a constraint, and part of an index that is none",
			   "Drop the constraint, or make it one of the whole table.");
	if (form->indisreplident)
		refuse(at, index, "is the table's replica identity",
			   "Choose another with ALTER TABLE ... REPLICA IDENTITY.");
	if (position >= form->indnkeyatts)
		refuse(at, index, "includes its values", "Drop the index, or make it without INCLUDE.");
	if (index->rd_rel->relam != BTREE_AM_OID && index->rd_rel->relam != HASH_AM_OID)
		refuse(at, index, "is of a kind that a sealed value cannot have", "Drop the index.");
	if (index->rd_opcintype[position] == InvalidOid ||
		index->rd_opfamily[position] != get_opclass_family(GetDefaultOpClass(at->attr->atttypid, index->rd_rel->relam)) ||
		index->rd_indcollation[position] != at->attr->attcollation)
		refuse(at, index, "does not compare it as the column does", "Drop the index.");
	if (form->indisunique && (tenant_at < 0 || tenant_at >= form->indnkeyatts))
		refuse(at, index, "is unique without the tenant column",
			   "Add the tenant column to it: each tenant's values are sealed under a key of its own, and cannot be compared with another's.");
	unsearchable = value_unsearchable(at->attr->atttypid, at->attr->attcollation);
	if (unsearchable)
		refuse(at, index, psprintf("would be one of terms, but %s", unsearchable),
			   "Drop the index.");
	if (!form->indisunique && at->column->term == NULL)
		refuse(at, index, "is on it",
			   "Drop the index, or name the column among the searchable ones.");
	if (at->column->term == NULL)
		at->column->term = protect_column_name(at->column->carrier, TERM_SUFFIX);
}

/* Look at one index of a table, for each column to be protected. */
static void
check_columns(ProtectPlan *plan, Relation rel, Relation index)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		IndexedColumn at = {plan, lfirst(cell)};

		if (!at.column->is_new)
			continue;
		at.attnum = get_attnum(RelationGetRelid(rel), at.column->carrier);
		at.tenant = get_attnum(RelationGetRelid(rel), plan->tenant);
		at.attr = TupleDescAttr(RelationGetDescr(rel), at.attnum - 1);
		check_index(&at, index);
	}
}

static void
check_indexes(ProtectPlan *plan, Relation rel, bool unique)
{
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisunique == unique)
			check_columns(plan, rel, index);
		index_close(index, NoLock);
	}
}

/*
 * Look at all indexes on the columns to be protected.  Those in unique indexes
 * become searchable, which others on the same columns may rely on.
 */
void
term_index_check(ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), NoLock);

		check_indexes(plan, rel, true);
		check_indexes(plan, rel, false);
		table_close(rel, NoLock);
	}
}

/* What a column is called after the move; itself where it is not moved */
static char *
moved_name(const ProtectPlan *plan, char *name, bool back)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (column->is_new && column->term && name &&
			strcmp(name, back ? column->term : column->carrier) == 0)
			return back ? column->carrier : column->term;
	}
	return name;
}

/* Is a column one that indexes have to give up? */
static bool
is_moved(const ProtectPlan *plan, const char *name, bool back)
{
	return moved_name(plan, unconstify(char *, name), back) != name;
}

static bool
index_is_moved(const ProtectPlan *plan, Relation index, bool back)
{
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		AttrNumber	attnum = index->rd_index->indkey.values[i];

		if (attnum > 0 &&
			is_moved(plan, get_attname(index->rd_index->indrelid, attnum, false), back))
			return true;
	}
	return false;
}

/* How to make an index again, as it is now */
static MovedIndex *
note_index(Oid relid, Relation index)
{
	MovedIndex *moved = palloc0(sizeof(MovedIndex));
	Oid			constraint = get_index_constraint(RelationGetRelid(index));

	moved->relid = relid;
	moved->name = pstrdup(RelationGetRelationName(index));
	moved->schema = get_namespace_name(RelationGetNamespace(index));
	moved->is_constraint = OidIsValid(constraint);
	moved->is_clustered = index->rd_index->indisclustered;
	moved->index_definition = protect_query(psprintf("SELECT pg_catalog.pg_get_indexdef(%u)",
													 RelationGetRelid(index)));
	moved->definition = OidIsValid(constraint) ?
		protect_query(psprintf("SELECT 'ALTER TABLE ' || %u::pg_catalog.regclass ||"
							   " ' ADD CONSTRAINT ' || pg_catalog.quote_ident(conname) || ' ' ||"
							   " pg_catalog.pg_get_constraintdef(oid)"
							   " FROM pg_catalog.pg_constraint WHERE oid = %u", relid, constraint)) :
		moved->index_definition;
	moved->tablespace = protect_query(psprintf("SELECT t.spcname FROM pg_catalog.pg_class c"
											   " JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace"
											   " WHERE c.oid = %u", RelationGetRelid(index)));
	moved->comment = OidIsValid(constraint) ?
		protect_query(psprintf("SELECT pg_catalog.obj_description(%u, 'pg_constraint')", constraint)) :
		protect_query(psprintf("SELECT pg_catalog.obj_description(%u, 'pg_class')",
							   RelationGetRelid(index)));
	moved->parts = term_index_list_parts(RelationGetRelid(index), moved->is_constraint);
	return moved;
}

/*
 * The indexes of one table that have to be made again, on terms or (back) on the
 * columns themselves: a list of MovedIndex.  They are left locked.
 */
List *
term_index_note(const ProtectPlan *plan, Oid relid, bool back, LOCKMODE lock)
{
	Relation	rel = table_open(relid, NoLock);
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), lock);

		/* A part goes with the index that it is part of. */
		if (!index->rd_rel->relispartition && index_is_moved(plan, index, back))
			result = lappend(result, note_index(relid, index));
		index_close(index, NoLock);
	}
	table_close(rel, NoLock);
	return result;
}

/* Drop an index that is to be made again. */
void
term_index_drop_moved(const MovedIndex *moved)
{
	protect_execute(moved->is_constraint ?
					psprintf("ALTER TABLE %s DROP CONSTRAINT %s",
							 protect_table_name(moved->relid), quote_identifier(moved->name)) :
					psprintf("DROP INDEX %s",
							 quote_qualified_identifier(moved->schema, moved->name)));
}

/*
 * Drop the indexes on columns that are being protected, or (back) on terms;
 * returns how to make them again.
 */
List *
term_index_drop(const ProtectPlan *plan, bool back)
{
	List	   *all = NIL;
	ListCell   *cell;

	foreach(cell, plan->relids)
		all = list_concat(all, term_index_note(plan, lfirst_oid(cell), back, AccessExclusiveLock));
	foreach(cell, all)
		term_index_drop_moved(lfirst(cell));
	return all;
}

static Node *
parse(const char *statement)
{
	return linitial_node(RawStmt, raw_parser(statement, RAW_PARSE_DEFAULT))->stmt;
}

/* Put other columns into a statement that makes an index. */
static void
move_index_columns(const ProtectPlan *plan, IndexStmt *stmt, char *tablespace, bool back)
{
	ListCell   *cell;

	foreach(cell, stmt->indexParams)
	{
		IndexElem  *element = lfirst_node(IndexElem, cell);

		element->name = moved_name(plan, element->name, back);
	}
	stmt->relation->inh = true;
	stmt->tableSpace = tablespace;
}

/* A statement that makes an index on terms in place of another, or of a part of it */
IndexStmt *
term_index_statement(const ProtectPlan *plan, const MovedIndex *moved, const MovedPart *part)
{
	IndexStmt  *stmt = castNode(IndexStmt, parse(part ? part->index_definition :
												 moved->index_definition));

	move_index_columns(plan, stmt, part ? part->tablespace : moved->tablespace, false);
	return stmt;
}

static void
move_constraint_columns(const ProtectPlan *plan, AlterTableStmt *stmt,
						const MovedIndex *moved, bool back)
{
	AlterTableCmd *command = linitial_node(AlterTableCmd, stmt->cmds);
	Constraint *constraint = castNode(Constraint, command->def);
	ListCell   *cell;

	foreach(cell, constraint->keys)
		lfirst(cell) = makeString(moved_name(plan, strVal(lfirst(cell)), back));
	constraint->indexspace = moved->tablespace;
	/* The definition of a constraint does not name the index's options. */
	constraint->options = castNode(IndexStmt, parse(moved->index_definition))->options;
}

/* Give an index that has the name of another what was said of that. */
void
term_index_describe(const MovedIndex *moved)
{
	char	   *table = protect_table_name(moved->relid);

	if (moved->comment)
		protect_execute(moved->is_constraint ?
						psprintf("COMMENT ON CONSTRAINT %s ON %s IS %s",
								 quote_identifier(moved->name), table,
								 quote_literal_cstr(moved->comment)) :
						psprintf("COMMENT ON INDEX %s IS %s",
								 quote_qualified_identifier(moved->schema, moved->name),
								 quote_literal_cstr(moved->comment)));
	if (moved->is_clustered)
		protect_execute(psprintf("ALTER TABLE %s CLUSTER ON %s", table,
								 quote_identifier(moved->name)));
}

/* Make an index again. */
static void
make_moved(const ProtectPlan *plan, const MovedIndex *moved, bool back)
{
	Node	   *statement = parse(moved->definition);

	if (moved->is_constraint)
		move_constraint_columns(plan, castNode(AlterTableStmt, statement), moved, back);
	else
		move_index_columns(plan, castNode(IndexStmt, statement), moved->tablespace, back);
	protect_run_utility(statement);
	CommandCounterIncrement();
	term_index_describe_parts(moved);
	term_index_describe(moved);
}

/* Has the table an index whose keys include a term? */
static bool
term_is_indexed(const ProtectPlan *plan, const ProtectColumn *column)
{
	return protect_query(psprintf("SELECT 1 FROM pg_catalog.pg_index i"
								  " JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid"
								  " WHERE i.indrelid = %u AND a.attname = %s"
								  " AND a.attnum = ANY (i.indkey::pg_catalog.int2[])",
								  plan->relid, quote_literal_cstr(column->term))) != NULL;
}

/* A statement that makes an index for a searchable column that has none */
IndexStmt *
term_index_own_statement(const ProtectPlan *plan, const ProtectColumn *column,
						 const char *name)
{
	return castNode(IndexStmt,
					parse(psprintf("CREATE INDEX %s ON %s (%s, %s)",
								   quote_identifier(name), plan->table,
								   quote_identifier(plan->tenant),
								   quote_identifier(column->term))));
}

/* Say of such an index whose it is. */
void
term_index_describe_own(const ProtectPlan *plan, const char *name)
{
	protect_execute(psprintf("COMMENT ON INDEX %s IS '%s'",
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(plan->relid)), name),
							 OWN_INDEX_COMMENT));
}

static void
make_own(const ProtectPlan *plan, const ProtectColumn *column)
{
	char	   *name = ChooseRelationName(plan->name, column->term, "idx",
										  get_rel_namespace(plan->relid), false);

	protect_run_utility((Node *) term_index_own_statement(plan, column, name));
	CommandCounterIncrement();
	term_index_describe_own(plan, name);
}

/*
 * Make again what term_index_drop dropped, on terms or (back) on the columns
 * themselves, and an index for each searchable column that has none.
 */
void
term_index_make(const ProtectPlan *plan, List *all, bool back)
{
	ListCell   *cell;

	foreach(cell, all)
	{
		MovedIndex *moved = lfirst(cell);

		if (back && moved->comment && strcmp(moved->comment, OWN_INDEX_COMMENT) == 0)
			continue;
		make_moved(plan, moved, back);
	}
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (!back && column->is_new && column->term && !term_is_indexed(plan, column))
			make_own(plan, column);
	}
}
