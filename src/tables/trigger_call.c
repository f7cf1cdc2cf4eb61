/*-------------------------------------------------------------------------
 *
 * trigger_call.c
 *	  Calls a trigger of the application on a protected table.
 *
 * The row triggers of a protected table are called through envelope.call_trigger
 * (triggers.c makes it so), whose first argument names the function that the
 * application wrote.  That function sees OLD and NEW as the application knows
 * them: values opened, columns that hold them sealed NULL.  What a BEFORE
 * trigger returns goes on to the trigger that seals; a value that it left alone
 * goes on sealed as it was.
 *
 * A condition (WHEN) that looks at protected columns is evaluated here: triggers.c
 * has made it (condition OR true).
 *
 * What has to be opened is opened for the current user, who needs to be allowed
 * to: the function may show it.  A session that sees the stored form is given
 * it here too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "compat.h"
#include "tables/functions.h"
#include "tables/planner.h"
#include "tables/seal.h"
#include "tables/triggers.h"
#include "tables/utility.h"

PG_FUNCTION_INFO_V1(envelope_call_trigger);

/* What a statement keeps of a trigger that it calls row by row */
typedef struct TriggerCall
{
	FmgrInfo	function;		/* the application's */
	Trigger		trigger;		/* as the application made it */
	ExprState  *condition;		/* NULL where it has none that was moved here */
	ExprContext *econtext;
	TupleTableSlot *old_slot;
	TupleTableSlot *new_slot;
} TriggerCall;

/* The condition of a trigger, ready to be evaluated; NULL where it was not moved */
static ExprState *
prepare_condition(const Trigger *trigger)
{
	Node	   *condition;

	if (trigger->tgqual == NULL)
		return NULL;
	condition = seal_moved_check(stringToNode(trigger->tgqual));
	if (condition == NULL)
		return NULL;
	ChangeVarNodes(condition, PRS2_OLD_VARNO, INNER_VAR, 0);
	ChangeVarNodes(condition, PRS2_NEW_VARNO, OUTER_VAR, 0);
	return ExecInitExpr(expression_planner((Expr *) condition), NULL);
}

/* Find out what to call; kept in the context that the statement's triggers have. */
static TriggerCall *
prepare_call(FunctionCallInfo fcinfo, TriggerData *trigdata)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	TriggerCall *call = palloc0(sizeof(TriggerCall));
	const Trigger *trigger = trigdata->tg_trigger;
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(trigdata->tg_relation));
	Oid			function;

	if (trigger->tgnargs < 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" does not say which function to call",
						trigger->tgname)));
	function = triggers_function(trigger->tgargs[0]);
	if (object_aclcheck(ProcedureRelationId, function,
						trigdata->tg_relation->rd_rel->relowner, ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, trigger->tgargs[0]);
	fmgr_info_cxt(function, &call->function, fcinfo->flinfo->fn_mcxt);

	call->trigger = *trigger;
	call->trigger.tgfoid = function;
	call->trigger.tgnargs--;
	call->trigger.tgargs++;
	call->condition = prepare_condition(trigger);
	call->econtext = CreateStandaloneExprContext();
	call->old_slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	call->new_slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	MemoryContextSwitchTo(oldcontext);
	return call;
}

static bool
has_sealed(Relation rel, const Protection *protection, HeapTuple tuple)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (!heap_attisnull(tuple, protection->columns[i].sidecar, RelationGetDescr(rel)))
			return true;
	}
	return false;
}

/* Has a row anything in columns that the application does not know? */
static bool
has_stored(Relation rel, const Protection *protection, HeapTuple tuple)
{
	for (int i = 0; i < protection->ncolumns; i++)
	{
		AttrNumber	term = protection->columns[i].term;

		if (term != 0 && !heap_attisnull(tuple, term, RelationGetDescr(rel)))
			return true;
	}
	return has_sealed(rel, protection, tuple);
}

/* Take over values that a row still has from the one before it, opened. */
static void
take_unchanged(Relation rel, const Protection *protection, HeapTuple old_stored,
			   HeapTuple old_opened, Datum *values, bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *at = &protection->columns[i];
		bool		isnull;
		Datum		before = heap_getattr(old_stored, at->sidecar, desc, &isnull);

		if (isnull || nulls[at->sidecar - 1] || !nulls[at->carrier - 1] ||
			!datum_image_eq(before, values[at->sidecar - 1], false, -1))
			continue;
		values[at->carrier - 1] = heap_getattr(old_opened, at->carrier, desc,
											   &nulls[at->carrier - 1]);
		nulls[at->sidecar - 1] = true;
		if (at->term)
			nulls[at->term - 1] = true;
	}
}

/*
 * A row as the application sees it; itself where it has nothing sealed.  Of a
 * new row, what it was before is given: values that it still has may be sealed
 * for the tenant that it had.
 */
static HeapTuple
open_tuple(Relation rel, HeapTuple tuple, HeapTuple old_stored, HeapTuple old_opened)
{
	Protection *protection = protection_of(RelationGetRelid(rel));
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *values;
	bool	   *nulls;
	HeapTuple	result;

	if (tuple == NULL || protection == NULL || planner_shows_stored_form() ||
		!has_stored(rel, protection, tuple))
		return tuple;
	if (has_sealed(rel, protection, tuple))
		functions_require_open();
	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(tuple, desc, values, nulls);
	if (old_stored && old_opened != old_stored)
		take_unchanged(rel, protection, old_stored, old_opened, values, nulls);
	seal_open_row(rel, values, nulls);
	for (int i = 0; i < protection->ncolumns; i++)
	{
		/* A carrier that is assigned has its old term beside it still. */
		if (protection->columns[i].term != 0)
			nulls[protection->columns[i].term - 1] = true;
	}
	result = heap_form_tuple(desc, values, nulls);
	result->t_self = tuple->t_self;
	result->t_tableOid = tuple->t_tableOid;
	result->t_data->t_ctid = tuple->t_data->t_ctid;
	return result;
}

/*
 * What a BEFORE trigger made of a row, with the values that it left alone
 * sealed as they were.
 */
static HeapTuple
close_tuple(Relation rel, HeapTuple returned, HeapTuple opened, HeapTuple stored)
{
	Protection *protection = protection_of(RelationGetRelid(rel));
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	HeapTuple	result;

	if (returned == opened || protection == NULL)
		return returned == opened ? stored : returned;
	heap_deform_tuple(returned, desc, values, nulls);
	for (int i = 0; i < protection->ncolumns; i++)
	{
		const ProtectedColumn *at = &protection->columns[i];
		Form_pg_attribute attr = TupleDescAttr(desc, at->carrier - 1);
		bool		isnull;
		Datum		before = heap_getattr(opened, at->carrier, desc, &isnull);

		if (isnull || nulls[at->carrier - 1] || !nulls[at->sidecar - 1] ||
			heap_attisnull(stored, at->sidecar, desc) ||
			!datum_image_eq(before, values[at->carrier - 1], attr->attbyval, attr->attlen))
			continue;
		nulls[at->carrier - 1] = true;
		values[at->sidecar - 1] = heap_getattr(stored, at->sidecar, desc, &nulls[at->sidecar - 1]);
		if (at->term)
			values[at->term - 1] = heap_getattr(stored, at->term, desc, &nulls[at->term - 1]);
	}
	result = heap_form_tuple(desc, values, nulls);
	result->t_self = returned->t_self;
	result->t_tableOid = returned->t_tableOid;
	result->t_data->t_ctid = returned->t_data->t_ctid;
	return result;
}

static void
store_tuple(TupleTableSlot *slot, HeapTuple tuple)
{
	if (tuple)
		ExecStoreHeapTuple(tuple, slot, false);
	else
		ExecClearTuple(slot);
}

static bool
condition_holds(TriggerCall *call, TupleTableSlot *old_slot, TupleTableSlot *new_slot)
{
	bool		isnull;
	bool		result;

	if (call->condition == NULL)
		return true;
	call->econtext->ecxt_innertuple = old_slot;
	call->econtext->ecxt_outertuple = new_slot;
	result = DatumGetBool(ExecEvalExprSwitchContext(call->condition, call->econtext, &isnull)) && !isnull;
	ResetExprContext(call->econtext);
	return result;
}

/* envelope.call_trigger(function, arguments ...); see the file's header. */
Datum
envelope_call_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *outer = (TriggerData *) fcinfo->context;
	TriggerData inner;
	TriggerCall *call;
	bool		is_update;
	HeapTuple	stored;
	HeapTuple	shown;
	HeapTuple	returned;

	LOCAL_FCINFO(inner_fcinfo, 0);

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(outer->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger for rows")));
	copy_hide_line();
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = prepare_call(fcinfo, outer);
	call = fcinfo->flinfo->fn_extra;

	is_update = TRIGGER_FIRED_BY_UPDATE(outer->tg_event);
	inner = *outer;
	inner.tg_trigger = &call->trigger;
	inner.tg_trigtuple = open_tuple(outer->tg_relation, outer->tg_trigtuple, NULL, NULL);
	inner.tg_newtuple = is_update ?
		open_tuple(outer->tg_relation, outer->tg_newtuple, outer->tg_trigtuple, inner.tg_trigtuple) :
		outer->tg_newtuple;
	stored = is_update ? outer->tg_newtuple : outer->tg_trigtuple;
	shown = is_update ? inner.tg_newtuple : inner.tg_trigtuple;

	store_tuple(call->old_slot, inner.tg_trigtuple);
	store_tuple(call->new_slot, inner.tg_newtuple);
	inner.tg_trigslot = call->old_slot;
	inner.tg_newslot = is_update ? call->new_slot : NULL;
	if (!condition_holds(call, call->old_slot,
						 is_update ? call->new_slot : call->old_slot))
		return PointerGetDatum(stored);

	InitFunctionCallInfoData(*inner_fcinfo, &call->function, 0, InvalidOid,
							 (Node *) &inner, NULL);
	returned = (HeapTuple) DatumGetPointer(FunctionCallInvoke(inner_fcinfo));
	ExecClearTuple(call->old_slot);
	ExecClearTuple(call->new_slot);
	if (inner_fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger function %s returned null value", outer->tg_trigger->tgargs[0])));
	if (returned == NULL || TRIGGER_FIRED_AFTER(outer->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(outer->tg_event))
		return PointerGetDatum(returned ? stored : NULL);
	return PointerGetDatum(close_tuple(outer->tg_relation, returned, shown, stored));
}
