/*-------------------------------------------------------------------------
 *
 * copy.c
 *	  COPY of protected tables.
 *
 * COPY reads a table without planning a query, and so would give out what is
 * stored.  It does so where the column list names a sidecar or term, as
 * pg_dump's does: what is sealed stays sealed, and no key is needed.  Any other
 * COPY TO becomes COPY (SELECT ...) TO, which is planned like any query.
 *
 * COPY FROM passes the trigger.  Without a column list it takes the columns of
 * the application, as if the others were not there.  Of a line that cannot be
 * stored it says the number, and not what is in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/copyfrom_internal.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "tables/planner.h"
#include "tables/protection.h"
#include "tables/utility.h"

/* Does a list of column names name one that the application does not know? */
static bool
names_stored(Oid relid, const Protection *protection, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		AttrNumber	attnum = get_attnum(relid, strVal(lfirst(cell)));

		for (int i = 0; i < protection->ncolumns; i++)
		{
			if (attnum != InvalidAttrNumber &&
				(attnum == protection->columns[i].sidecar ||
				 attnum == protection->columns[i].term))
				return true;
		}
	}
	return false;
}

static bool
is_stored(const Protection *protection, AttrNumber attnum)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (attnum == protection->columns[i].sidecar ||
			attnum == protection->columns[i].term)
			return true;
	}
	return false;
}

/* The columns that COPY would take if the table were not protected */
static List *
application_columns(Oid relid, const Protection *protection)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *names = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (!attr->attisdropped && !attr->attgenerated &&
			!is_stored(protection, attr->attnum))
			names = lappend(names, makeString(pstrdup(NameStr(attr->attname))));
	}
	table_close(rel, NoLock);
	return names;
}

/* SELECT names FROM ONLY relation */
static Node *
select_columns(RangeVar *relation, List *names)
{
	SelectStmt *select = makeNode(SelectStmt);
	RangeVar   *from = copyObject(relation);
	ListCell   *cell;

	from->inh = false;
	select->fromClause = list_make1(from);
	foreach(cell, names)
	{
		ResTarget  *target = makeNode(ResTarget);
		ColumnRef  *column = makeNode(ColumnRef);

		column->fields = list_make1(copyObject(lfirst(cell)));
		column->location = -1;
		target->val = (Node *) column;
		target->location = -1;
		select->targetList = lappend(select->targetList, target);
	}
	return (Node *) select;
}

/*
 * Make of a COPY what it has to be if its table is protected; the statement is
 * changed in place.
 */
void
copy_adapt(CopyStmt *stmt)
{
	Oid			relid;
	Protection *protection;

	if (stmt->relation == NULL || planner_shows_stored_form())
		return;
	relid = RangeVarGetRelid(stmt->relation,
							 stmt->is_from ? RowExclusiveLock : AccessShareLock, true);
	if (!OidIsValid(relid) || (protection = protection_of(relid)) == NULL)
		return;
	if (stmt->attlist && names_stored(relid, protection, stmt->attlist))
		return;

	if (stmt->attlist == NIL)
		stmt->attlist = application_columns(relid, protection);
	if (stmt->is_from || get_rel_relkind(relid) != RELKIND_RELATION)
		return;
	stmt->query = select_columns(stmt->relation, stmt->attlist);
	stmt->relation = NULL;
	stmt->attlist = NIL;
}

/*
 * Have a COPY that stores the row at hand leave out its line from the context of
 * errors, which client and server log would get: it holds the values to be
 * sealed.
 */
void
copy_hide_line(void)
{
	for (ErrorContextCallback *callback = error_context_stack; callback;
		 callback = callback->previous)
	{
		if (callback->callback == CopyFromErrorCallback)
			((CopyFromState) callback->arg)->line_buf_valid = false;
	}
}
