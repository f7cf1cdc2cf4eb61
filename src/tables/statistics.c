/*-------------------------------------------------------------------------
 *
 * statistics.c
 *	  What the planner is told of the values of protected columns.
 *
 * ANALYZE sees carriers that are null, sidecars of which all differ, and
 * terms.  What is compared, grouped and joined is none of them, but a call that
 * opens a sidecar, of which PostgreSQL knows nothing.  Two things can be known
 * without a plaintext being stored: how many values are null, from the sidecar;
 * and how many differ, from the term, which differs where tenant or value do.
 * Where ANALYZE found that terms become more with the rows, as those of e-mail
 * addresses, values are taken to be as many; where they are some fixed number,
 * as those of cities, to be the same for each tenant.  Whoever knows better, or
 * has a column without terms, says so by
 *
 *		ALTER TABLE ... ALTER COLUMN ... SET (n_distinct = ...)
 *
 * which ANALYZE writes down for the carrier.
 *
 * PostgreSQL looks for statistics of an expression at the indexes over it, and
 * lets modules add indexes that do not exist, and speak for them.  So each
 * protected table gets such an index that includes what opens its columns.  Its
 * key is a carrier, which no plan reads, and it is of a kind that is searched by
 * its key or not at all; so no plan uses it.
 *
 * Which values are frequent, and how they are ordered, nobody knows.  A column
 * with statistics but no histogram is worse estimated by PostgreSQL than one
 * without either, where it is compared by order or pattern.  There, and where
 * the number of values is not known, nothing is said.
 *
 * Terms have statistics of their own.  But a term implies its tenant, and
 * stands beside a condition on the tenant that is counted too: a tenth of the
 * rows, and of these a tenth of what the term has.  So what is said of terms is
 * how often they are among the rows of that tenant; not where the only index has
 * the term alone, which would be taken for more than that index finds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/selfuncs.h"
#include "utils/syscache.h"

#include "compat.h"
#include "crypto/format.h"
#include "tables/functions.h"
#include "tables/planner.h"
#include "tables/protection.h"
#include "tables/statistics.h"

static get_relation_info_hook_type prev_get_relation_info_hook = NULL;
static get_index_stats_hook_type prev_get_index_stats_hook = NULL;
static get_relation_stats_hook_type prev_get_relation_stats_hook = NULL;

/* While a condition on a term is looked at as PostgreSQL does */
static bool terms_as_stored = false;

/* A column of a table of the range table */
static Expr *
column_var(int rti, Oid relid, AttrNumber attno)
{
	Oid			type;
	int32		typmod;
	Oid			collation;

	get_atttypetypmodcoll(relid, attno, &type, &typmod, &collation);
	return (Expr *) makeVar(rti, attno, type, typmod, collation, 0);
}

/* What statements on a protected table open its columns by */
static List *
opened_columns(int rti, const Protection *protection)
{
	List	   *result = NIL;

	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *column = &protection->columns[i];

		result = lappend(result,
						 functions_call_open(column_var(rti, protection->relid,
														protection->tenant),
											 column_var(rti, protection->relid,
														column->sidecar),
											 column->context, column->type,
											 column->typmod, column->collation));
	}
	return result;
}

/*
 * Add an index to those of a protected table that is none.  It is known by
 * having the table's own id.
 */
static void
add_index(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	Protection *protection;
	IndexOptInfo *index;

	if (prev_get_relation_info_hook)
		prev_get_relation_info_hook(root, relid, inhparent, rel);
	if (planner_shows_stored_form() || !protection_exists(relid) ||
		(protection = protection_of(relid)) == NULL || protection->live)
		return;

	index = makeNode(IndexOptInfo);
	index->indexoid = relid;
	index->rel = rel;
	index->tree_height = -1;
	index->ncolumns = 1 + protection->ncolumns;
	index->nkeycolumns = 1;
	index->indexkeys = palloc0(index->ncolumns * sizeof(int));
	index->indexkeys[0] = protection->columns[0].carrier;
	index->indexcollations = palloc0(sizeof(Oid));
	index->opfamily = palloc0(sizeof(Oid));
	index->opcintype = palloc0(sizeof(Oid));
	index->canreturn = palloc0(index->ncolumns * sizeof(bool));
	index->indexprs = opened_columns(rel->relid, protection);
	index->amoptionalkey = false;
	index->hypothetical = true;
	rel->indexlist = lappend(rel->indexlist, index);
}

/* The statistics of a column, to be released; NULL where there are none */
static HeapTuple
column_statistics(Oid relid, AttrNumber attno, bool inherited)
{
	return SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
						   Int16GetDatum(attno), BoolGetDatum(inherited));
}

/*
 * How many values of a column differ, as statistics tell it: if negative, as a
 * part of the rows; 0 if unknown.
 */
static float4
distinct_values(Oid relid, AttrNumber attno, bool inherited)
{
	HeapTuple	tuple = attno == 0 ? NULL : column_statistics(relid, attno, inherited);
	float4		result = 0;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_statistic) GETSTRUCT(tuple))->stadistinct;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* How many values of a protected column differ; as distinct_values */
static float4
distinct_opened(const Protection *protection, const ProtectedColumn *column,
				bool inherited)
{
	Oid			relid = protection->relid;
	float4		result = distinct_values(relid, column->carrier, inherited);
	float4		tenants;

	if (result != 0)
		return result;
	result = distinct_values(relid, column->term, inherited);
	tenants = distinct_values(relid, protection->tenant, inherited);
	if (result > 0 && tenants > 0)
		result = Max(result / tenants, 1);
	return result;
}

/* Statistics that tell of a column how many values are null, and how many differ */
static HeapTuple
make_statistics(Oid relid, AttrNumber attno, bool inherited,
				float4 nullfrac, int32 width, float4 distinct)
{
	Relation	catalog = table_open(StatisticRelationId, AccessShareLock);
	Datum		values[Natts_pg_statistic] = {0};
	bool		nulls[Natts_pg_statistic] = {false};
	HeapTuple	result;

	for (int i = 0; i < STATISTIC_NUM_SLOTS; i++)
	{
		nulls[Anum_pg_statistic_stanumbers1 - 1 + i] = true;
		nulls[Anum_pg_statistic_stavalues1 - 1 + i] = true;
	}
	values[Anum_pg_statistic_starelid - 1] = ObjectIdGetDatum(relid);
	values[Anum_pg_statistic_staattnum - 1] = Int16GetDatum(attno);
	values[Anum_pg_statistic_stainherit - 1] = BoolGetDatum(inherited);
	values[Anum_pg_statistic_stanullfrac - 1] = Float4GetDatum(nullfrac);
	values[Anum_pg_statistic_stawidth - 1] = Int32GetDatum(width);
	values[Anum_pg_statistic_stadistinct - 1] = Float4GetDatum(distinct);
	result = heap_form_tuple(RelationGetDescr(catalog), values, nulls);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Is what opens a column compared by something other than equality?
 */
static bool
is_ordered_walker(Node *node, void *opened)
{
	if (node == NULL)
		return false;
	if (IsA(node, RestrictInfo))
		return is_ordered_walker((Node *) ((RestrictInfo *) node)->clause, opened);
	if (IsA(node, OpExpr) || IsA(node, ScalarArrayOpExpr))
	{
		bool		is_op = IsA(node, OpExpr);
		RegProcedure estimator = get_oprrest(is_op ? ((OpExpr *) node)->opno :
											 ((ScalarArrayOpExpr *) node)->opno);
		ListCell   *cell;

		if (estimator != F_EQSEL && estimator != F_NEQSEL)
		{
			foreach(cell, is_op ? ((OpExpr *) node)->args : ((ScalarArrayOpExpr *) node)->args)
			{
				Node	   *side = lfirst(cell);

				while (side && IsA(side, RelabelType))
					side = (Node *) ((RelabelType *) side)->arg;
				if (equal(side, opened))
					return true;
			}
		}
	}
	return expression_tree_walker(node, is_ordered_walker, opened);
}

/* Give the statistics of what opens a column. */
static bool
give_statistics(PlannerInfo *root, Oid indexid, AttrNumber indexattnum,
				VariableStatData *vardata)
{
	Protection *protection;
	const ProtectedColumn *column;
	bool		inherited;
	float4		distinct;
	HeapTuple	sidecar;
	Form_pg_statistic known;
	int			overhead = (int) sealed_size(SEALED_GCM, 0);

	/* No index has the id of a table. */
	if (!protection_exists(indexid))
		return prev_get_index_stats_hook != NULL &&
			prev_get_index_stats_hook(root, indexid, indexattnum, vardata);

	protection = protection_of(indexid);
	column = &protection->columns[indexattnum - 2]; /* behind the key */
	inherited = planner_rt_fetch(vardata->rel->relid, root)->inh;
	distinct = distinct_opened(protection, column, inherited);
	if (distinct == 0 ||
		is_ordered_walker((Node *) vardata->rel->baserestrictinfo, vardata->var))
		return true;

	sidecar = column_statistics(indexid, column->sidecar, inherited);
	if (!HeapTupleIsValid(sidecar))
		return true;
	known = (Form_pg_statistic) GETSTRUCT(sidecar);
	vardata->statsTuple = make_statistics(indexid, column->carrier, inherited,
										  known->stanullfrac,
										  Max(known->stawidth - overhead, 1),
										  distinct);
	vardata->freefunc = heap_freetuple;
	vardata->acl_ok = true;
	ReleaseSysCache(sidecar);
	return true;
}

/* The column of a protected table that a term belongs to; NULL where it is none */
static const ProtectedColumn *
column_of_term(const Protection *protection, AttrNumber attno)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (protection->columns[i].term == attno)
			return &protection->columns[i];
	}
	return NULL;
}

/* Is a column among the keys of an index? */
static bool
index_has(const IndexOptInfo *index, AttrNumber attno)
{
	for (int i = 0; i < index->nkeycolumns; i++)
	{
		if (index->indexkeys[i] == attno)
			return true;
	}
	return false;
}

/*
 * May a term be counted among the rows of its tenant?  Not where the only index
 * has it alone, or extended statistics say what it has to do with others.
 */
static bool
goes_with_tenant(const RelOptInfo *rel, AttrNumber term, AttrNumber tenant)
{
	bool		alone = false;
	bool		together = false;
	ListCell   *cell;

	foreach(cell, rel->statlist)
	{
		if (bms_is_member(term, ((StatisticExtInfo *) lfirst(cell))->keys))
			return false;
	}
	foreach(cell, rel->indexlist)
	{
		if (!index_has(lfirst(cell), term))
			continue;
		if (index_has(lfirst(cell), tenant))
			together = true;
		else
			alone = true;
	}
	return together || !alone;
}

/* Is this column compared for equality, with something that is no Var of its table? */
static bool
is_equality_of(const Node *clause, int rti, AttrNumber attno)
{
	const OpExpr *op = (const OpExpr *) clause;
	ListCell   *cell;

	if (!IsA(op, OpExpr) || get_oprrest(op->opno) != F_EQSEL)
		return false;
	foreach(cell, op->args)
	{
		const Node *side = lfirst(cell);

		while (side && IsA(side, RelabelType))
			side = (const Node *) ((const RelabelType *) side)->arg;
		if (side && IsA(side, Var) && ((const Var *) side)->varno == rti &&
			((const Var *) side)->varattno == attno)
			return true;
	}
	return false;
}

/* What a condition "column = ..." on a table leaves of its rows; 0 where there is none */
static double
condition_selectivity(PlannerInfo *root, const RelOptInfo *rel, AttrNumber attno)
{
	ListCell   *cell;

	foreach(cell, rel->baserestrictinfo)
	{
		Node	   *clause = (Node *) lfirst_node(RestrictInfo, cell)->clause;

		if (is_equality_of(clause, rel->relid, attno))
			return clause_selectivity(root, clause, 0, JOIN_INNER, NULL);
	}
	return 0;
}

/* Which part of the rows is those of the tenant that is asked for; 0 if unknown */
static double
tenant_selectivity(PlannerInfo *root, const RelOptInfo *rel,
				   const Protection *protection, bool inherited)
{
	double		result = condition_selectivity(root, rel, protection->tenant);
	double		tenants;

	if (result != 0)
		return result;
	tenants = distinct_values(protection->relid, protection->tenant, inherited);
	if (tenants < 0)
		tenants = -tenants * rel->tuples;
	return tenants < 1 ? 0 : 1 / tenants;
}

/*
 * Which part of the rows of a tenant has a term: the one that a condition names,
 * or one like any other.  0 if unknown.
 */
static double
term_selectivity(PlannerInfo *root, const RelOptInfo *rel,
				 const Protection *protection, const ProtectedColumn *column,
				 bool inherited)
{
	double		of_tenant = tenant_selectivity(root, rel, protection, inherited);
	double		of_term = condition_selectivity(root, rel, column->term);
	double		distinct = distinct_opened(protection, column, inherited);

	if (of_tenant == 0 || (of_term == 0 && distinct == 0))
		return 0;
	if (of_term == 0)
		of_term = distinct > 0 ? of_tenant / distinct :
			1 / Max(-distinct * rel->tuples, 1);
	return Min(of_term / of_tenant, 1);
}

/* Give the statistics of a term among the rows of its tenant. */
static bool
give_term_statistics(PlannerInfo *root, RangeTblEntry *rte, AttrNumber attnum,
					 VariableStatData *vardata)
{
	RelOptInfo *rel = vardata->rel;
	Protection *protection;
	const ProtectedColumn *column;
	double		selectivity = 0;

	if (prev_get_relation_stats_hook &&
		prev_get_relation_stats_hook(root, rte, attnum, vardata))
		return true;
	if (terms_as_stored || rte->rtekind != RTE_RELATION || planner_shows_stored_form() ||
		rel == NULL || !protection_exists(rte->relid) || rel->relid == 0 ||
		rel->relid >= root->simple_rel_array_size || root->simple_rel_array[rel->relid] != rel ||
		planner_rt_fetch(rel->relid, root) != rte)
		return false;
	protection = protection_of(rte->relid);
	column = column_of_term(protection, attnum);
	if (column == NULL || !goes_with_tenant(rel, attnum, protection->tenant))
		return false;

	terms_as_stored = true;
	PG_TRY();
	{
		selectivity = term_selectivity(root, rel, protection, column, rte->inh);
	}
	PG_FINALLY();
	{
		terms_as_stored = false;
	}
	PG_END_TRY();
	if (selectivity == 0)
		return false;
	vardata->statsTuple = make_statistics(rte->relid, attnum, rte->inh, 0,
										  TERM_BYTES, 1 / selectivity);
	vardata->freefunc = heap_freetuple;
	vardata->acl_ok = true;
	return true;
}

/*
 * Called from _PG_init, in a server that preloads the module.
 */
void
statistics_install_hooks(void)
{
	prev_get_relation_info_hook = get_relation_info_hook;
	get_relation_info_hook = add_index;
	prev_get_index_stats_hook = get_index_stats_hook;
	get_index_stats_hook = give_statistics;
	prev_get_relation_stats_hook = get_relation_stats_hook;
	get_relation_stats_hook = give_term_statistics;
}
