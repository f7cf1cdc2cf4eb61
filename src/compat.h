/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between the servers and systems that envelope runs on.
 *
 * The only place in the tree that looks at PG_VERSION_NUM or at the
 * operating system.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_COMPAT_H
#define ENVELOPE_COMPAT_H

#include <time.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "access/genam.h"
#include "access/tupdesc.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteHandler.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/wait_event.h"

/* PostgreSQL 16 moved the macros for varlena values to a header of their own. */
#if PG_VERSION_NUM >= 160000
#include "parser/parse_relation.h"
#include "varatt.h"
#endif

/* PostgreSQL 18 puts it before the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* PostgreSQL 16 made one function of those for each kind of object. */
#if PG_VERSION_NUM < 160000
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"

static inline bool
object_ownercheck(Oid class_id, Oid object_id, Oid role)
{
	Assert(class_id == RelationRelationId);
	return pg_class_ownercheck(object_id, role);
}

static inline AclResult
object_aclcheck(Oid class_id, Oid object_id, Oid role, AclMode mode)
{
	Assert(class_id == NamespaceRelationId || class_id == ProcedureRelationId);
	return class_id == NamespaceRelationId ?
		pg_namespace_aclcheck(object_id, role, mode) :
		pg_proc_aclcheck(object_id, role, mode);
}
#endif

/* PostgreSQL 18 made NOT NULL a constraint; before, there is none of this type. */
#if PG_VERSION_NUM < 180000
#define CONSTRAINT_NOTNULL	'n'
#endif

/* PostgreSQL 18 has constraints that are not enforced. */
static inline bool
constraint_is_enforced(const ConstrCheck *check)
{
#if PG_VERSION_NUM >= 180000
	return check->ccenforced;
#else
	return true;
#endif
}

/* PostgreSQL 17 can give a generated column another expression. */
static inline bool
alter_sets_expression(const AlterTableCmd *command)
{
#if PG_VERSION_NUM >= 170000
	return command->subtype == AT_SetExpression;
#else
	(void) command;
	return false;
#endif
}

/* PostgreSQL 16 added an argument. */
static inline List *
qualified_name_list(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return stringToQualifiedNameList(name, NULL);
#else
	return stringToQualifiedNameList(name);
#endif
}

/* The columns of a table that a query reads; PostgreSQL 16 moved them. */
static inline Bitmapset *
selected_columns(const Query *query, RangeTblEntry *entry)
{
#if PG_VERSION_NUM >= 160000
	return entry->perminfoindex == 0 ? NULL :
		getRTEPermissionInfo(query->rteperminfos, entry)->selectedCols;
#else
	(void) query;
	return entry->selectedCols;
#endif
}

/*
 * PostgreSQL 17 gave extensions wait events with names of their own; before
 * it they all wait as "Extension".
 */
static inline uint32
wait_event_named(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * A set of events to wait for, for the life of the process.  PostgreSQL 17 asks
 * for a resource owner instead of a memory context.
 */
static inline WaitEventSet *
wait_event_set_create(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/*
 * Milliseconds since the machine was booted, suspended time included where
 * the system can tell: a key must not outlive its time because the machine
 * was paused.
 */
static inline int64
boottime_ms(void)
{
	struct timespec ts;

#ifdef CLOCK_BOOTTIME
	clock_gettime(CLOCK_BOOTTIME, &ts);
#else
	clock_gettime(CLOCK_MONOTONIC, &ts);
#endif
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * The backend that a virtual transaction id names; PostgreSQL 17 numbers
 * backends otherwise, and calls it so.
 */
static inline int
vxid_backend(const VirtualTransactionId *vxid)
{
#if PG_VERSION_NUM >= 170000
	return vxid->procNumber;
#else
	return vxid->backendId;
#endif
}

/*
 * Make a relation, the only one, that of an executor state, with the columns
 * that are to be updated.  PostgreSQL 16 put these beside the range table, and
 * 18 wants to know which entries were not pruned.
 */
static inline void
executor_state_of_relation(EState *estate, Oid relid, char relkind,
						   Bitmapset *updated)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *rtes = list_make1(rte);

	rte->rtekind = RTE_RELATION;
	rte->relid = relid;
	rte->relkind = relkind;
	rte->rellockmode = RowExclusiveLock;
#if PG_VERSION_NUM >= 160000
	{
		RTEPermissionInfo *perminfo = makeNode(RTEPermissionInfo);

		perminfo->relid = relid;
		perminfo->updatedCols = updated;
		rte->perminfoindex = 1;
#if PG_VERSION_NUM >= 180000
		ExecInitRangeTable(estate, rtes, list_make1(perminfo),
						   bms_make_singleton(1));
#else
		ExecInitRangeTable(estate, rtes, list_make1(perminfo));
#endif
	}
#else
	rte->updatedCols = updated;
	ExecInitRangeTable(estate, rtes);
#endif
}

/*
 * Prepare the CHECK constraints of a relation that is written to, as the
 * executor would when it looks at the first row, in the current context; but
 * not those that are said to hold.  PostgreSQL 18 renamed their place, and has
 * generated columns that are not stored.
 */
static inline void
executor_prepare_constraints(ResultRelInfo *target, EState *estate,
							 const bool *hold)
{
	Relation	rel = target->ri_RelationDesc;
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	ExprState **states = palloc0(constraints->num_check * sizeof(ExprState *));

	for (int i = 0; i < constraints->num_check; i++)
	{
		const ConstrCheck *check = &constraints->check[i];
		Node	   *expression;

		if (hold[i] || !constraint_is_enforced(check))
			continue;
		expression = stringToNode(check->ccbin);
#if PG_VERSION_NUM >= 180000
		expression = expand_generated_columns_in_expr(expression, rel, 1);
#endif
		states[i] = ExecPrepareExpr((Expr *) expression, estate);
	}
#if PG_VERSION_NUM >= 180000
	target->ri_CheckConstraintExprs = states;
#else
	target->ri_ConstraintExprs = states;
#endif
}

/* PostgreSQL 16 gave it an argument more. */
static inline void
executor_recheck_init(EPQState *epqstate, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	EvalPlanQualInit(epqstate, estate, NULL, NIL, -1, NIL);
#else
	EvalPlanQualInit(epqstate, estate, NULL, NIL, -1);
#endif
}

/* PostgreSQL 18 counts what scans of indexes do. */
static inline IndexScanDesc
index_scan_begin(Relation rel, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(rel, index, snapshot, nkeys, 0);
#endif
}

/*
 * Keep the memory of this process out of core files, and out of reach of other
 * processes of the same user.
 */
static inline void
process_keep_out_of_core_files(void)
{
#ifdef __linux__
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

/*
 * Let the outer joins that null a Var null another too.  Before PostgreSQL 16
 * Vars do not tell.
 */
static inline void
var_add_nulling(Var *var, const Var *nulled)
{
#if PG_VERSION_NUM >= 160000
	var->varnullingrels = bms_union(var->varnullingrels, nulled->varnullingrels);
#endif
}

/*
 * The columns of a range-table entry that are read, for which the user needs
 * privileges.  PostgreSQL 16 keeps them beside the range table.  NULL where
 * there are none to be checked.
 */
static inline Bitmapset **
entry_selected_columns(Query *query, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	if (rte->perminfoindex == 0)
		return NULL;
	return &getRTEPermissionInfo(query->rteperminfos, rte)->selectedCols;
#else
	return &rte->selectedCols;
#endif
}

/*
 * Where the condition of a MERGE is, if not in its join tree, as PostgreSQL 17
 * has it.  NULL where nothing may be added to it, because both sides are joined
 * in full.
 */
static inline Node **
query_merge_condition(Query *query)
{
#if PG_VERSION_NUM >= 170000
	ListCell   *cell;

	if (query->mergeJoinCondition == NULL)
		return NULL;
	foreach(cell, query->mergeActionList)
	{
		if (lfirst_node(MergeAction, cell)->matchKind == MERGE_WHEN_NOT_MATCHED_BY_SOURCE)
			return NULL;
	}
	return &query->mergeJoinCondition;
#else
	return NULL;
#endif
}

/*
 * Define an index CONCURRENTLY, as the current user, who owns the table.  A
 * snapshot is active; when it returns, in another transaction, none is.
 * PostgreSQL 16 added an argument.
 */
static inline void
define_index_concurrently(Oid relid, IndexStmt *stmt)
{
#if PG_VERSION_NUM >= 160000
	(void) DefineIndex(relid, stmt, InvalidOid, InvalidOid, InvalidOid, -1,
					   false, false, true, false, false);
#else
	(void) DefineIndex(relid, stmt, InvalidOid, InvalidOid, InvalidOid,
					   false, false, true, false, false);
#endif
}

#endif							/* ENVELOPE_COMPAT_H */
