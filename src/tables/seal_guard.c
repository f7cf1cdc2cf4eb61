/*-------------------------------------------------------------------------
 *
 * seal_guard.c
 *	  The trigger on columns that applications fill by hand.
 *
 * It keeps out values under a key that is to be destroyed, and asks the memo for
 * that after the executor has locked the leaf table: so each transaction that
 * begins after a key was scheduled for destruction has accepted the invalidation
 * by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "utils/datum.h"
#include "utils/rel.h"

#include "compat.h"
#include "errors.h"
#include "keys/memo.h"
#include "tables/registry.h"

PG_FUNCTION_INFO_V1(envelope_seal_guard);

/* The column that a guard is called for, read once a statement */
static const SealedColumn *
guarded_column(FunctionCallInfo fcinfo)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	SealedColumn *column = fcinfo->flinfo->fn_extra;
	MemoryContext oldcontext;

	if (column)
		return column;
	oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	column = palloc(sizeof(SealedColumn));
	registry_read_guard(trigdata->tg_relation, trigdata->tg_trigger, column);
	MemoryContextSwitchTo(oldcontext);
	fcinfo->flinfo->fn_extra = column;
	return column;
}

/* Had the row this very value before? */
static bool
had_value(TriggerData *trigdata, AttrNumber attnum, Datum value)
{
	bool		isnull;
	Datum		before;

	if (!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		return false;
	before = heap_getattr(trigdata->tg_trigtuple, attnum,
						  RelationGetDescr(trigdata->tg_relation), &isnull);
	return !isnull && (datumIsEqual(value, before, false, -1) ||
					   datum_image_eq(value, before, false, -1));
}

/*
 * Trigger, BEFORE INSERT OR UPDATE FOR EACH ROW: a value under a key that is
 * about to be destroyed, or was, is not stored (VE005), unless the row had it
 * before: whoever looks for the key's values finds it there anyway.  Anything
 * else is not the guard's business: what is no sealed value, and keys that are
 * not here.
 */
Datum
envelope_seal_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const SealedColumn *column;
	HeapTuple	row;
	Datum		value;
	bool		isnull;
	int64		key_id;
	const KeyMemo *key;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("seal_guard can only be called as a trigger before INSERT or UPDATE, for each row")));

	column = guarded_column(fcinfo);
	row = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
		trigdata->tg_newtuple : trigdata->tg_trigtuple;
	value = heap_getattr(row, column->column, RelationGetDescr(trigdata->tg_relation),
						 &isnull);
	if (isnull || had_value(trigdata, column->column, value) ||
		!sealed_value_key(value, &key_id))
		return PointerGetDatum(row);

	key = memo_key(key_id);
	if (key && (key->state == KEY_SCHEDULED || key->state == KEY_DESTROYED))
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_DESTROYED),
				 errmsg("nothing can be stored under key " INT64_FORMAT " any more", key_id),
				 errdetail(key->state == KEY_DESTROYED ? "It was destroyed." :
						   "It is about to be destroyed.")));
	return PointerGetDatum(row);
}
