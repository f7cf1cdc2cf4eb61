/*-------------------------------------------------------------------------
 *
 * seal_check.c
 *	  CHECK constraints that were moved to the trigger of a protected table.
 *
 * A CHECK over a carrier cannot be evaluated on what is stored.  envelope_protect
 * has made it (expression OR true); here the expression is evaluated over the
 * row as the application sees it.
 *
 * It is evaluated where something that it mentions is written.  A row that
 * comes sealed, as from a restore, was checked where it was sealed: looking at
 * it again would need a key.  Values that the row had before are opened only if
 * another column of the expression changes.  Then the current user needs to be
 * allowed to open them: the expression may call functions that show what they
 * are given, and an error tells of the value, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "tables/functions.h"
#include "tables/seal.h"

/* A constraint, ready to be evaluated */
typedef struct SealCheck
{
	const char *name;
	ExprState  *state;
	Bitmapset  *attributes;		/* that it mentions, as pull_varattnos gives
								 * them */
} SealCheck;

/* The constraints of a table; kept while a statement runs */
typedef struct SealChecks
{
	int			nchecks;
	SealCheck  *checks;
	ExprContext *econtext;
	TupleTableSlot *slot;
} SealChecks;

/*
 * The expression of a constraint that was moved to the trigger; NULL where it
 * was not.
 */
Node *
seal_moved_check(Node *expression)
{
	BoolExpr   *bool_expr = (BoolExpr *) expression;
	Const	   *last;

	if (expression == NULL || !IsA(expression, BoolExpr) ||
		bool_expr->boolop != OR_EXPR)
		return NULL;
	last = llast(bool_expr->args);
	if (!IsA(last, Const) || last->constisnull || !DatumGetBool(last->constvalue))
		return NULL;
	if (list_length(bool_expr->args) == 2)
		return linitial(bool_expr->args);

	/* A dump that was restored has made one list of (a OR b) OR true. */
	bool_expr = copyObject(bool_expr);
	bool_expr->args = list_delete_last(bool_expr->args);
	return (Node *) bool_expr;
}

static bool
mentions(const Bitmapset *attributes, AttrNumber attnum)
{
	return bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, attributes);
}

static bool
mentions_carrier(const Bitmapset *attributes, const Protection *protection)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (mentions(attributes, protection->columns[i].carrier))
			return true;
	}
	return false;
}

/*
 * The moved expression of a constraint of the relcache, and what it mentions;
 * NULL where it was not moved here.
 */
static Node *
read_check(const ConstrCheck *check, const Protection *protection,
		   Bitmapset **attributes)
{
	Node	   *expression = seal_moved_check(stringToNode(check->ccbin));

	*attributes = NULL;
	if (expression == NULL)
		return NULL;
	pull_varattnos(expression, 1, attributes);
	return mentions_carrier(*attributes, protection) ? expression : NULL;
}

/* Have constraints of a table been moved to its trigger? */
bool
seal_has_checks(Relation rel, const Protection *protection)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	Bitmapset  *attributes;

	for (int i = 0; constraints && i < constraints->num_check; i++)
	{
		if (read_check(&constraints->check[i], protection, &attributes))
			return true;
	}
	return false;
}

/* Make the constraints of a table ready, in the current context. */
static SealChecks *
prepare_checks(Relation rel, const Protection *protection)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	SealChecks *result = palloc0(sizeof(SealChecks));

	result->econtext = CreateStandaloneExprContext();
	result->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
											&TTSOpsVirtual);
	result->slot->tts_tableOid = RelationGetRelid(rel);
	if (constraints == NULL)
		return result;
	result->checks = palloc0(constraints->num_check * sizeof(SealCheck));
	for (int i = 0; i < constraints->num_check; i++)
	{
		SealCheck  *check = &result->checks[result->nchecks];
		Node	   *expression = read_check(&constraints->check[i], protection,
											&check->attributes);

		if (expression == NULL || !constraint_is_enforced(&constraints->check[i]))
			continue;
		check->name = pstrdup(constraints->check[i].ccname);
		check->state = ExecInitExpr(expression_planner((Expr *) expression), NULL);
		result->nchecks++;
	}
	return result;
}

static SealChecks *
get_checks(FunctionCallInfo fcinfo, const SealRow *row)
{
	MemoryContext oldcontext;

	if (fcinfo->flinfo->fn_extra == NULL)
	{
		oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		fcinfo->flinfo->fn_extra = prepare_checks(row->rel, row->table->protection);
		MemoryContextSwitchTo(oldcontext);
	}
	return fcinfo->flinfo->fn_extra;
}

/* Was a column of the row written, other than by sealing the same anew? */
static bool
was_written(const SealRow *row, AttrNumber attnum)
{
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(row->rel), attnum - 1);

	if (row->nulls[attnum - 1] || row->old_nulls[attnum - 1])
		return row->nulls[attnum - 1] != row->old_nulls[attnum - 1];
	return !datum_image_eq(row->values[attnum - 1], row->old_values[attnum - 1],
						   attr->attbyval, attr->attlen);
}

/* Does a constraint have to be evaluated for the row? */
static bool
must_check(const SealCheck *check, const SealRow *row, const bool *given_nulls)
{
	const Protection *protection = row->table->protection;
	Bitmapset  *others = bms_copy(check->attributes);
	bool		written = row->old_values == NULL;
	int			member = -1;

	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *at = &protection->columns[i];

		if (at->clear || !mentions(check->attributes, at->carrier))
			continue;
		others = bms_del_member(others, at->carrier - FirstLowInvalidHeapAttributeNumber);
		if (row->old_values && seal_same(row, at->sidecar))
			continue;
		if (!given_nulls[at->carrier - 1] || row->nulls[at->sidecar - 1])
			written = true;
		else if (!row->tenant_moved)
			return false;		/* It came sealed. */
	}
	while (!written && (member = bms_next_member(others, member)) >= 0)
	{
		AttrNumber	attnum = member + FirstLowInvalidHeapAttributeNumber;

		written = attnum > 0 && was_written(row, attnum);
	}
	return written;
}

/* Put what the application sees of the carriers that a constraint mentions. */
static void
show_carriers(const SealCheck *check, SealRow *row, TupleTableSlot *slot,
			  const Datum *given, const bool *given_nulls)
{
	for (int i = 0; i < row->table->protection->ncolumns; i++)
	{
		const SealColumn *column = &row->table->columns[i];
		AttrNumber	carrier = column->at->carrier;
		AttrNumber	sidecar = column->at->sidecar;
		ValueLabel	label;

		if (column->at->clear || !mentions(check->attributes, carrier))
			continue;
		slot->tts_isnull[carrier - 1] = row->nulls[sidecar - 1];
		if (row->nulls[sidecar - 1])
			continue;
		if (!given_nulls[carrier - 1])
		{
			slot->tts_values[carrier - 1] = given[carrier - 1];
			continue;
		}
		functions_require_open();
		label = seal_label(row, column);
		slot->tts_values[carrier - 1] = seal_open(&label, column, row->values[sidecar - 1]);
	}
}

/*
 * Raise (23514) what a row violates.  given is the row as the trigger got it,
 * row what is stored.
 */
void
seal_check_row(FunctionCallInfo fcinfo, SealRow *row, const Datum *given,
			   const bool *given_nulls)
{
	SealChecks *checks = get_checks(fcinfo, row);
	TupleTableSlot *slot = checks->slot;
	int			natts = RelationGetDescr(row->rel)->natts;

	for (int i = 0; i < checks->nchecks; i++)
	{
		SealCheck  *check = &checks->checks[i];

		if (!must_check(check, row, given_nulls))
			continue;
		ExecClearTuple(slot);
		memcpy(slot->tts_values, row->values, natts * sizeof(Datum));
		memcpy(slot->tts_isnull, row->nulls, natts * sizeof(bool));
		show_carriers(check, row, slot, given, given_nulls);
		ExecStoreVirtualTuple(slot);
		checks->econtext->ecxt_scantuple = slot;
		if (ExecCheck(check->state, checks->econtext))
		{
			ResetExprContext(checks->econtext);
			continue;
		}
		seal_report_nulls(row);
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("new row for relation \"%s\" violates check constraint \"%s\"",
						RelationGetRelationName(row->rel), check->name),
				 errtableconstraint(row->rel, check->name)));
	}
}
