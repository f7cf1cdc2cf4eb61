/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  What changes the definition of a protected table.
 *
 * A protected table is altered as any other is; what belongs to a protected
 * column goes with it: DROP COLUMN drops the sidecar and term, RENAME renames
 * them, SET NOT NULL is the sidecar's.  The trigger's arguments name columns, so
 * it is dropped before such a change and made again after it.
 *
 * What would put plaintext on disk, or look at the NULLs that are there, is
 * refused: another type, new constraints, expressions over a protected column,
 * publications by one.
 * The way out is always to unprotect the table, change it, and protect it again.
 *
 * Whoever does not own the table gets PostgreSQL's own error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "settings.h"
#include "tables/planner.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/triggers.h"
#include "tables/utility.h"

pg_noreturn static void
refuse(const ProtectPlan *plan, const char *what, const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 column ?
			 errmsg("cannot %s column \"%s\" of protected table \"%s\"", what, column, plan->name) :
			 errmsg("cannot %s protected table \"%s\"", what, plan->name),
			 errhint("Make it an ordinary table with envelope_unprotect first, and protect it again afterwards.")));
}

pg_noreturn static void
refuse_live(const ProtectPlan *plan)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("table \"%s\" is being protected live", plan->name),
			 errhint("CALL envelope_protect_live again to finish it, or envelope_unprotect to go back.")));
}

/*
 * Does the trigger of a table fit it?  Where it does not, as after a column was
 * renamed in a server without the module, statements pass that mend it.
 */
static bool
trigger_fits(Oid relid)
{
	Relation	rel = RelationIdGetRelation(relid);
	const char *misfit = NULL;

	if (RelationIsValid(rel))
	{
		(void) protection_try_read(rel, &misfit);
		RelationClose(rel);
	}
	return misfit == NULL;
}

/*
 * The plan of a protected table, and (owned) one that the current user owns;
 * NULL for any other table.  No more than looked at: what changes it takes its own lock.
 */
static ProtectPlan *
plan_for(RangeVar *relation, bool owned)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;
	ProtectPlan *plan;
	Relation	rel;

	if (!OidIsValid(relid) ||
		(get_rel_relkind(relid) != RELKIND_RELATION &&
		 get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE) ||
		!trigger_fits(relid) || protection_of(relid) == NULL ||
		(owned && !object_ownercheck(RelationRelationId, relid, GetUserId())))
		return NULL;
	rel = relation_open(relid, AccessShareLock);
	plan = protect_plan(rel, AccessShareLock);
	relation_close(rel, NoLock);
	return plan->is_protected ? plan : NULL;
}

static ProtectPlan *
plan_of(RangeVar *relation)
{
	return plan_for(relation, true);
}

static ProtectColumn *
column_called(const ProtectPlan *plan, const char *name)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (name && strcmp(column->carrier, name) == 0)
			return column;
	}
	return NULL;
}

/* Is this the tenant column, or one that the application does not know? */
static bool
is_fixed(const ProtectPlan *plan, const char *name)
{
	ListCell   *cell;

	if (name == NULL)
		return false;
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (strcmp(column->sidecar, name) == 0 ||
			(column->term && strcmp(column->term, name) == 0))
			return true;
	}
	return false;
}

/* Does an expression, not analyzed yet, name a protected column? */
static bool
mentions_carrier(Node *node, void *context)
{
	const ProtectPlan *plan = context;

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		Node	   *last = llast(((ColumnRef *) node)->fields);

		return IsA(last, A_Star) ||
			column_called(plan, strVal(last)) != NULL || is_fixed(plan, strVal(last)) ||
			strcmp(strVal(last), plan->name) == 0;
	}
	return raw_expression_tree_walker(node, mentions_carrier, context);
}

static bool
names_carrier(const ProtectPlan *plan, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (column_called(plan, strVal(lfirst(cell))))
			return true;
	}
	return false;
}

/* Is this a constraint that is ours? */
static bool
is_own_constraint(const ProtectPlan *plan, const char *name)
{
	ListCell   *cell;

	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (strcmp(name, column->sidecar) == 0 ||
			strcmp(name, protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)) == 0)
			return true;
	}
	return false;
}

/* A new constraint, or one that comes with a new column */
static void
check_constraint(ProtectPlan *plan, Constraint *constraint)
{
	ProtectColumn *column;

	if (constraint->contype == CONSTR_NOTNULL)
	{
		column = constraint->keys ? column_called(plan, strVal(linitial(constraint->keys))) : NULL;
		if (column && plan->live)
			refuse_live(plan);
		if (column)
			constraint->keys = list_make1(makeString(column->sidecar));
		return;
	}
	if (names_carrier(plan, constraint->keys) ||
		names_carrier(plan, constraint->including) ||
		names_carrier(plan, constraint->fk_attrs) ||
		mentions_carrier(constraint->raw_expr, plan) ||
		mentions_carrier((Node *) constraint->exclusions, plan) ||
		mentions_carrier(constraint->where_clause, plan))
		refuse(plan, "add a constraint on a protected column to", NULL);
}

static void
check_new_column(ProtectPlan *plan, ColumnDef *definition)
{
	ListCell   *cell;

	foreach(cell, definition->constraints)
		check_constraint(plan, lfirst_node(Constraint, cell));
}

/* Let a command drop what belongs to a column, and the trigger be made again. */
static List *
drop_with_column(DdlChange *change, AlterTableCmd *command)
{
	ProtectPlan *plan = change->plan;
	ProtectColumn *column = column_called(plan, command->name);
	const char *names[] = {column->sidecar, column->term};
	List	   *result = NIL;

	for (int i = 0; i < lengthof(names); i++)
	{
		AlterTableCmd *drop;

		if (names[i] == NULL)
			continue;
		drop = makeNode(AlterTableCmd);
		drop->subtype = AT_DropColumn;
		drop->name = pstrdup(names[i]);
		drop->behavior = command->behavior;
		result = lappend(result, drop);
	}
	plan->columns = list_delete_ptr(plan->columns, column);
	change->make_trigger = true;
	return result;
}

/* Is a column protected in the same way in another table? */
static bool
is_same_column(const ProtectColumn *column, const ProtectColumn *other)
{
	return other != NULL &&
		strcmp(column->sidecar, other->sidecar) == 0 &&
		strcmp(column->context, other->context) == 0 &&
		strcmp(column->term ? column->term : "", other->term ? other->term : "") == 0;
}

/* Refuse a trigger of a table that would be called after the one that seals. */
static void
check_trigger_names(const ProtectPlan *plan, Oid relid)
{
	ListCell   *cell;

	LockRelationOid(relid, AccessShareLock);
	foreach(cell, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Relation	rel = relation_open(lfirst_oid(cell), NoLock);

		for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		{
			const Trigger *trigger = &rel->trigdesc->triggers[i];

			if (!trigger->tgisinternal && TRIGGER_FOR_ROW(trigger->tgtype) &&
				TRIGGER_FOR_BEFORE(trigger->tgtype) &&
				trigger->tgfoid != protection_seal_function() &&
				strcmp(trigger->tgname, SEAL_TRIGGER) >= 0)
				refuse(plan, "call a trigger after the one that seals on", NULL);
		}
		relation_close(rel, NoLock);
	}
}

/*
 * A table that is to become a partition: if it is protected it has to be in the
 * same way, and gives up its trigger for the one that comes with it.
 */
static void
attach_before(const ProtectPlan *plan, RangeVar *partition)
{
	ProtectPlan *other = plan_of(partition);
	Oid			relid = RangeVarGetRelid(partition, NoLock, true);
	ListCell   *cell;
	OwnerScope	scope;

	if (OidIsValid(relid) && object_ownercheck(RelationRelationId, relid, GetUserId()))
		check_trigger_names(plan, relid);
	if (other == NULL)
		return;
	if (list_length(plan->columns) != list_length(other->columns) ||
		strcmp(plan->tenant, other->tenant) != 0)
		refuse(plan, "attach a table that is protected in another way to", NULL);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (!is_same_column(column, column_called(other, column->carrier)))
			refuse(plan, "attach a table that is protected in another way to", NULL);
	}
	protect_begin(other, &scope);
	alter_drop_trigger(other);
	protect_end(&scope);
}

/* One command of ALTER TABLE; returns what has to be done beside it. */
static List *
check_command(DdlChange *change, AlterTableCmd *command)
{
	ProtectPlan *plan = change->plan;
	ProtectColumn *column = column_called(plan, command->name);
	bool		fixed = is_fixed(plan, command->name);
	bool		is_tenant = command->name && strcmp(command->name, plan->tenant) == 0;

	switch (command->subtype)
	{
		case AT_DropColumn:
			if (is_tenant || fixed)
				refuse(plan, "drop", command->name);
			return column ? drop_with_column(change, command) : NIL;
		case AT_AlterColumnType:
			if (column || is_tenant || fixed)
				refuse(plan, "change the type of", command->name);
			if (mentions_carrier(((ColumnDef *) command->def)->raw_default, plan))
				refuse(plan, "use a protected column to change", NULL);
			break;
		case AT_SetNotNull:
		case AT_DropNotNull:
			if (fixed)
				refuse(plan, "change", command->name);
			if (column && plan->live)
				refuse_live(plan);
			if (column)
				command->name = pstrdup(column->sidecar);
			break;
		case AT_AddIdentity:
		case AT_SetIdentity:
			if (column || fixed)
				refuse(plan, "make an identity of", command->name);
			break;
		case AT_ColumnDefault:
			if (fixed)
				refuse(plan, "change", command->name);
			break;
		case AT_AddConstraint:
			check_constraint(plan, castNode(Constraint, command->def));
			break;
		case AT_DropConstraint:
			if (is_own_constraint(plan, command->name))
				refuse(plan, psprintf("drop constraint \"%s\" of", command->name), NULL);
			break;
		case AT_AddColumn:
			check_new_column(plan, castNode(ColumnDef, command->def));
			break;
		case AT_AddInherit:
		case AT_AddOf:
			refuse(plan, "let another table inherit from or be", NULL);
		case AT_AttachPartition:
			if (plan->live)
				refuse_live(plan);
			attach_before(plan, ((PartitionCmd *) command->def)->name);
			change->more_tables = change->wrap_triggers = !planner_shows_stored_form();
			break;
		case AT_ChangeOwner:
			change->new_owner = true;
			break;
		case AT_DetachPartition:
			/* It loses the triggers that it had from the table. */
			if (((PartitionCmd *) command->def)->concurrent)
				refuse(plan, "detach CONCURRENTLY a partition of", NULL);
			change->created = ((PartitionCmd *) command->def)->name;
			break;
		case AT_EnableTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			change->enable_trigger = true;
			break;
		case AT_DisableTrig:
			if (command->name && strcmp(command->name, SEAL_TRIGGER) == 0)
				refuse(plan, "disable the trigger that seals", NULL);
			break;
		default:
			break;
	}
	return NIL;
}

/* A table that is to inherit from a protected one */
static void
refuse_heir(const AlterTableCmd *command)
{
	ProtectPlan *parent = command->subtype == AT_AddInherit ?
		plan_of(castNode(RangeVar, command->def)) : NULL;

	if (parent)
		refuse(parent, "let another table inherit from", NULL);
}

static void
alter_table_before(AlterTableStmt *stmt, DdlChange *change)
{
	List	   *more = NIL;
	ListCell   *cell;
	OwnerScope	scope;

	foreach(cell, stmt->cmds)
		refuse_heir(lfirst_node(AlterTableCmd, cell));
	if (stmt->objtype != OBJECT_TABLE ||
		(change->plan = plan_of(stmt->relation)) == NULL)
		return;
	foreach(cell, stmt->cmds)
		more = list_concat(more, check_command(change, lfirst_node(AlterTableCmd, cell)));
	stmt->cmds = list_concat(stmt->cmds, more);
	if (!change->make_trigger)
		return;
	if (change->plan->live)
		refuse_live(change->plan);
	protect_begin(change->plan, &scope);
	alter_drop_trigger(change->plan);
	protect_end(&scope);
	change->plan->is_protected = false;
}

/* A column that is renamed takes along what belongs to it. */
static void
rename_column_before(RenameStmt *stmt, ProtectPlan *plan, DdlChange *change)
{
	OwnerScope	scope;

	if (is_fixed(plan, stmt->subname))
		refuse(plan, "rename", stmt->subname);
	if (column_called(plan, stmt->subname) == NULL &&
		strcmp(plan->tenant, stmt->subname) != 0)
		return;
	if (plan->live)
		refuse_live(plan);
	change->plan = plan;
	change->renamed = stmt->subname;
	change->new_name = stmt->newname;
	change->make_trigger = true;
	protect_begin(plan, &scope);
	alter_drop_trigger(plan);
	protect_end(&scope);
	plan->is_protected = false;
}

static void
rename_before(RenameStmt *stmt, DdlChange *change)
{
	ProtectPlan *plan;

	switch (stmt->renameType)
	{
		case OBJECT_FUNCTION:
		case OBJECT_ROUTINE:
		case OBJECT_SCHEMA:
			change->called = triggers_called();
			return;
		case OBJECT_COLUMN:
			if (stmt->relationType == OBJECT_TABLE &&
				(plan = plan_of(stmt->relation)) != NULL)
				rename_column_before(stmt, plan, change);
			return;
		case OBJECT_TABCONSTRAINT:
			if ((plan = plan_of(stmt->relation)) != NULL &&
				is_own_constraint(plan, stmt->subname))
				refuse(plan, psprintf("rename constraint \"%s\" of", stmt->subname), NULL);
			return;
		case OBJECT_TRIGGER:
			if ((plan = plan_of(stmt->relation)) == NULL)
				return;
			if (strcmp(stmt->subname, SEAL_TRIGGER) == 0)
				refuse(plan, "rename the trigger that seals", NULL);
			if (strcmp(stmt->newname, SEAL_TRIGGER) >= 0)
				refuse(plan, "call a trigger after the one that seals on", NULL);
			return;
		default:
			return;
	}
}

/*
 * Is an expression, not analyzed yet, the key id of a sidecar?  It tells of no
 * value, and rotation looks for keys by an index on it.
 */
static bool
is_key_id(const ProtectPlan *plan, Node *expr)
{
	FuncCall   *call = (FuncCall *) expr;
	Oid			argument = BYTEAOID;
	Oid			function;
	ListCell   *cell;

	if (expr == NULL || !IsA(expr, FuncCall) || list_length(call->args) != 1 ||
		!IsA(linitial(call->args), ColumnRef) ||
		strcmp(strVal(llast(call->funcname)), KEY_ID_FUNCTION) != 0)
		return false;
	function = LookupFuncName(call->funcname, 1, &argument, true);
	if (!OidIsValid(function) ||
		getExtensionOfObject(ProcedureRelationId, function) != get_extension_oid("envelope", true))
		return false;
	foreach(cell, plan->columns)
	{
		Node	   *last = llast(((ColumnRef *) linitial(call->args))->fields);

		if (IsA(last, String) &&
			strcmp(strVal(last), ((ProtectColumn *) lfirst(cell))->sidecar) == 0)
			return true;
	}
	return false;
}

/* The columns of an index: a searchable one stands for its term. */
static void
index_before(IndexStmt *stmt)
{
	ProtectPlan *plan = plan_of(stmt->relation);
	bool		has_tenant = false;
	bool		has_term = false;
	ListCell   *cell;

	if (plan == NULL)
		return;
	foreach(cell, stmt->indexParams)
	{
		IndexElem  *element = lfirst_node(IndexElem, cell);
		ProtectColumn *column = column_called(plan, element->name);

		if (element->name && strcmp(element->name, plan->tenant) == 0)
			has_tenant = true;
		if (mentions_carrier(element->expr, plan) && !is_key_id(plan, element->expr))
			refuse(plan, "index an expression over a protected column of", NULL);
		if (column == NULL)
			continue;
		if (column->clear)
			refuse_live(plan);
		if (column->term == NULL || element->opclass || element->collation ||
			(strcmp(stmt->accessMethod, "btree") != 0 && strcmp(stmt->accessMethod, "hash") != 0))
			refuse(plan, "index", column->carrier);
		element->name = pstrdup(column->term);
		has_term = true;
	}
	foreach(cell, stmt->indexIncludingParams)
	{
		if (column_called(plan, lfirst_node(IndexElem, cell)->name))
			refuse(plan, "include in an index", lfirst_node(IndexElem, cell)->name);
	}
	if (mentions_carrier(stmt->whereClause, plan))
		refuse(plan, "have an index whose predicate looks at a protected column of", NULL);
	if (stmt->unique && has_term && !has_tenant)
		refuse(plan, "make unique across tenants a protected column of", NULL);
}

static void
trigger_before(CreateTrigStmt *stmt, DdlChange *change)
{
	ProtectPlan *plan = plan_for(stmt->relation, false);

	if (plan && stmt->row && stmt->timing == TRIGGER_TYPE_BEFORE &&
		strcmp(stmt->trigname, SEAL_TRIGGER) >= 0)
		refuse(plan, "call a trigger after the one that seals on", NULL);
	change->plan = stmt->row ? plan : NULL;
	/* Who works on what is stored gets it in triggers too, as pg_repack's. */
	change->wrap_triggers = !planner_shows_stored_form();
}

static void
statistics_before(CreateStatsStmt *stmt)
{
	ProtectPlan *plan;
	ListCell   *cell;

	if (stmt->relations == NIL || !IsA(linitial(stmt->relations), RangeVar) ||
		(plan = plan_of(linitial(stmt->relations))) == NULL)
		return;
	foreach(cell, stmt->exprs)
	{
		StatsElem  *element = lfirst_node(StatsElem, cell);

		if (column_called(plan, element->name) || mentions_carrier(element->expr, plan))
			refuse(plan, "keep statistics on a protected column of", NULL);
	}
}

/* Tables of a publication: it would send of a carrier what is stored, null. */
static void
publication_before(List *objects)
{
	ListCell   *cell;

	foreach(cell, objects)
	{
		const PublicationTable *table = lfirst_node(PublicationObjSpec, cell)->pubtable;
		ProtectPlan *plan = table ? plan_of(table->relation) : NULL;

		if (plan && (names_carrier(plan, table->columns) ||
					 mentions_carrier(table->whereClause, plan)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot publish protected table \"%s\" by a protected column",
							plan->name),
					 errdetail("A row filter would look at the null that is stored in it, and a column list would send that."),
					 errhint("Publish the table without a list, or name the columns that hold what is sealed in place of it.")));
	}
}

/* CREATE TABLE ... LIKE, INHERITS */
static void
create_before(CreateStmt *stmt, DdlChange *change)
{
	ListCell   *cell;

	foreach(cell, stmt->tableElts)
	{
		TableLikeClause *like = lfirst(cell);
		Oid			relid;

		if (!IsA(like, TableLikeClause))
			continue;
		relid = RangeVarGetRelid(like->relation, NoLock, true);
		if (!OidIsValid(relid) || protection_of(relid) == NULL)
			continue;
		if ((like->options & CREATE_TABLE_LIKE_CONSTRAINTS) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a table like protected table \"%s\" would not be protected",
							like->relation->relname),
					 errhint("Add INCLUDING CONSTRAINTS, which makes it a protected one, or name the columns instead.")));
		change->plan = plan_of(like->relation);
		if (change->plan == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be owner of protected table \"%s\" to make one like it",
							like->relation->relname)));
		change->created = stmt->relation;
	}
	if (stmt->partbound)
		return;
	foreach(cell, stmt->inhRelations)
	{
		ProtectPlan *plan = plan_of(lfirst(cell));

		if (plan)
			refuse(plan, "let another table inherit from", NULL);
	}
}

/* DROP TRIGGER of ours; pg_restore --clean begins with it */
static void
drop_before(DropStmt *stmt)
{
	ListCell   *cell;

	if (stmt->removeType != OBJECT_TRIGGER)
		return;
	foreach(cell, stmt->objects)
	{
		List	   *names = list_copy(lfirst_node(List, cell));
		ProtectPlan *plan;

		if (strcmp(strVal(llast(names)), SEAL_TRIGGER) != 0)
			continue;
		plan = plan_of(makeRangeVarFromNameList(list_delete_last(names)));
		if (plan && !envelope_allow_drop_extension)
			refuse(plan, "drop the trigger that seals of", NULL);
	}
}

/*
 * Look at a statement before it is executed; it may be changed in place.
 */
void
ddl_before(Node *stmt, DdlChange *change)
{
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			alter_table_before((AlterTableStmt *) stmt, change);
			break;
		case T_RenameStmt:
			rename_before((RenameStmt *) stmt, change);
			break;
		case T_IndexStmt:
			index_before((IndexStmt *) stmt);
			break;
		case T_CreateTrigStmt:
			trigger_before((CreateTrigStmt *) stmt, change);
			break;
		case T_CreateStatsStmt:
			statistics_before((CreateStatsStmt *) stmt);
			break;
		case T_CreatePublicationStmt:
			publication_before(((CreatePublicationStmt *) stmt)->pubobjects);
			break;
		case T_AlterPublicationStmt:
			publication_before(((AlterPublicationStmt *) stmt)->pubobjects);
			break;
		case T_AlterObjectSchemaStmt:
			if (((AlterObjectSchemaStmt *) stmt)->objectType != OBJECT_TABLE)
				change->called = triggers_called();
			break;
		case T_CreateStmt:
			create_before((CreateStmt *) stmt, change);
			break;
		case T_DropStmt:
			drop_before((DropStmt *) stmt);
			break;
		default:
			break;
	}
}

/* Call what belongs to a renamed column after it. */
static void
rename_with_column(ProtectPlan *plan, ProtectColumn *column, char *new_name)
{
	char	   *sidecar = protect_column_name(new_name, SIDECAR_SUFFIX);
	char	   *term = protect_column_name(new_name, TERM_SUFFIX);

	protect_execute(psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", plan->table,
							 quote_identifier(column->sidecar), quote_identifier(sidecar)));
	protect_execute(psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", plan->table,
							 quote_identifier(column->sidecar), quote_identifier(sidecar)));
	protect_execute(psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", plan->table,
							 quote_identifier(protect_column_name(column->carrier, PLAIN_CHECK_SUFFIX)),
							 quote_identifier(protect_column_name(new_name, PLAIN_CHECK_SUFFIX))));
	if (column->term)
	{
		protect_execute(psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", plan->table,
								 quote_identifier(column->term), quote_identifier(term)));
		column->term = term;
	}
	column->carrier = new_name;
	column->sidecar = sidecar;
}

/*
 * Put a plan's names on the table that was made like its own, or was part of it.
 */
static void
plan_created(DdlChange *change)
{
	Oid			relid = RangeVarGetRelid(change->created, NoLock, true);
	ProtectPlan *plan = change->plan;

	if (!OidIsValid(relid) || protection_of(relid) != NULL)
	{
		change->plan = NULL;
		return;
	}
	plan->relid = relid;
	plan->name = get_rel_name(relid);
	plan->table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
											 plan->name);
	plan->is_protected = false;
	change->make_trigger = true;
}

static Oid
owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Do what is left to do when the statement has been executed.
 */
void
ddl_after(DdlChange *change)
{
	ProtectPlan *plan = change->plan;
	OwnerScope	scope;
	ProtectColumn *column;

	triggers_follow(change->called);
	if (plan == NULL)
		return;
	CommandCounterIncrement();
	if (change->created)
		plan_created(change);
	if (change->more_tables)
		plan->relids = find_all_inheritors(plan->relid, NoLock, NULL);
	if (change->wrap_triggers)
		triggers_wrap(plan);
	if (change->plan && (change->new_owner || change->make_trigger))
	{
		plan->owner = owner_of(plan->relid);
		protect_allow_triggers(plan->owner);
	}
	if (change->plan == NULL || (!change->make_trigger && !change->enable_trigger))
		return;

	protect_begin(plan, &scope);
	if (change->renamed)
	{
		column = column_called(plan, change->renamed);
		if (column)
			rename_with_column(plan, column, change->new_name);
		else
			plan->tenant = change->new_name;
	}
	if (change->make_trigger && plan->columns != NIL)
		alter_make_trigger(plan);
	else if (change->enable_trigger)
		protect_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
								 plan->table, SEAL_TRIGGER));
	protect_end(&scope);
}
