/*-------------------------------------------------------------------------
 *
 * sweep_index.c
 *	  Indexes that spare a sweep a look at every row.
 *
 * Two kinds serve.  One led by the tenant column tells re-encryption in which
 * blocks a tenant has rows.  It need not tell of all: rows move, and a value may
 * be under the key of a tenant that its row does not name.  The scan finds what
 * was left out, and re-encryption then looks at every block.
 *
 * One on envelope_key_id(column) tells a scan itself whether any row is under a
 * key.  What it says goes into a proof, so it must be as complete as the heap:
 * valid, ready and not partial; a B-tree with the operators and the collation
 * that equality has without it; on our function, of that column alone; and not
 * younger than the snapshot that it is read under, where rows from before it
 * may be missing.  These are the conditions under which the planner takes an
 * index, but that it would take some more.  Whoever changes pg_index by hand can
 * lie to it and to us.
 *
 * A key that is to die is looked for in the heap all the same (death.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_am.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "compat.h"
#include "keys/encoding.h"
#include "lifecycle/sweep.h"
#include "lifecycle/sweep_index.h"
#include "tables/protection.h"

/* Has the index every row that the active snapshot shows? */
static bool
is_complete(Relation index)
{
	Form_pg_index form = index->rd_index;

	return index->rd_rel->relam == BTREE_AM_OID &&
		form->indisvalid && form->indisready && form->indislive &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
		(!form->indcheckxmin ||
		 TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data),
							   TransactionXmin));
}

/* Does its first column compare as the type does by default? */
static bool
compares_by_default(Relation index, Oid type, Oid collation)
{
	Oid			opclass = GetDefaultOpClass(type, BTREE_AM_OID);

	return OidIsValid(opclass) &&
		index->rd_opfamily[0] == get_opclass_family(opclass) &&
		index->rd_opcintype[0] == get_opclass_input_type(opclass) &&
		index->rd_indcollation[0] == collation;
}

/* Is the index led by a column? */
static bool
is_led_by(Relation index, Form_pg_attribute attr)
{
	return index->rd_index->indkey.values[0] == attr->attnum &&
		compares_by_default(index, attr->atttypid, attr->attcollation);
}

/* Is the index led by the key ids of a column? */
static bool
is_on_key_ids(Relation index, Form_pg_attribute attr)
{
	List	   *expressions;
	FuncExpr   *call;
	Var		   *var;

	if (index->rd_index->indkey.values[0] != 0 ||
		!compares_by_default(index, INT8OID, InvalidOid))
		return false;
	expressions = RelationGetIndexExpressions(index);
	call = linitial(expressions);
	if (!IsA(call, FuncExpr) || list_length(call->args) != 1)
		return false;
	var = linitial(call->args);
	return IsA(var, Var) && var->varattno == attr->attnum &&
		strcmp(get_func_name(call->funcid), KEY_ID_FUNCTION) == 0 &&
		getExtensionOfObject(ProcedureRelationId, call->funcid) ==
		get_extension_oid("envelope", true);
}

/*
 * The first complete index of a table that is as wanted, for a column; NULL
 * where there is none.  Opened with AccessShareLock.
 */
static Relation
find_index(Relation rel, AttrNumber attnum,
		   bool (*is_wanted) (Relation index, Form_pg_attribute attr))
{
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	List	   *indexes = RelationGetIndexList(rel);
	Relation	found = NULL;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (is_complete(index) && is_wanted(index, attr))
		{
			found = index;
			break;
		}
		index_close(index, NoLock);
	}
	list_free(indexes);
	return found;
}

/* Is this how a uuid is written as a tenant's id? */
static bool
is_uuid(const char *tenant)
{
	static const char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	for (int i = 0; i < lengthof(pattern); i++)
	{
		if (pattern[i] == 'x' ?
			strchr("0123456789abcdef", tenant[i]) == NULL || tenant[i] == '\0' :
			tenant[i] != pattern[i])
			return false;
	}
	return true;
}

/*
 * A tenant's id (UTF-8) as a value of a type of tenant columns; false where no
 * value of that type is this id.
 */
static bool
tenant_datum(const char *tenant, Oid type, Datum *value)
{
	size_t		len = strlen(tenant);
	char	   *end;
	int64		number;

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			errno = 0;
			number = strtoll(tenant, &end, 10);
			if (errno != 0 || end == tenant || *end != '\0')
				return false;
			if (type == INT8OID)
				*value = Int64GetDatum(number);
			else if (type == INT4OID && number == (int32) number)
				*value = Int32GetDatum((int32) number);
			else if (type == INT2OID && number == (int16) number)
				*value = Int16GetDatum((int16) number);
			else
				return false;
			return true;
		case UUIDOID:
			if (!is_uuid(tenant))
				return false;
			*value = DirectFunctionCall1(uuid_in, CStringGetDatum(tenant));
			return true;
		default:
			tenant = utf8_to_server(tenant, &len);
			*value = PointerGetDatum(cstring_to_text_with_len(tenant, len));
			return true;
	}
}

/* Look for what the first column equals; its type is as the index compares it. */
static void
rescan_for(IndexScanDesc scan, Relation index, Datum value)
{
	Oid			type = index->rd_opcintype[0];
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, type,
						   index->rd_indcollation[0],
						   get_opcode(get_opfamily_member(index->rd_opfamily[0], type, type,
														  BTEqualStrategyNumber)),
						   value);
	index_rescan(scan, &key, 1, NULL, 0);
}

/* Add the units that an index says the sweep's tenants have rows in. */
static Bitmapset *
add_units(Sweep *sweep, Relation rel, Relation index, AttrNumber tenant, Bitmapset *units)
{
	Oid			type = TupleDescAttr(RelationGetDescr(rel), tenant - 1)->atttypid;
	IndexScanDesc scan = index_scan_begin(rel, index, GetActiveSnapshot(), 1);
	MemoryContext oldcontext;
	HASH_SEQ_STATUS status;
	SweepKey   *key;

	hash_seq_init(&status, sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		ItemPointer tid;
		Datum		value;

		if (!tenant_datum(key->tenant, type, &value))
			continue;
		rescan_for(scan, index, value);
		oldcontext = MemoryContextSwitchTo(sweep->context);
		while ((tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
		{
			CHECK_FOR_INTERRUPTS();
			units = bms_add_member(units, ItemPointerGetBlockNumber(tid) / SWEEP_UNIT_BLOCKS);
		}
		MemoryContextSwitchTo(oldcontext);
	}
	index_endscan(scan);
	return units;
}

/*
 * The units of a table in which the sweep's tenants have rows, in *units, in the
 * sweep's context.  False where no index tells.  A snapshot is active.
 */
bool
sweep_index_units(Sweep *sweep, Relation rel, const SealedTable *sealed,
				  Bitmapset **units)
{
	Bitmapset  *done = NULL;

	*units = NULL;
	for (int i = 0; i < sealed->ncolumns; i++)
	{
		AttrNumber	tenant = sealed->columns[i].tenant;
		Relation	index;

		if (bms_is_member(tenant, done))
			continue;
		index = find_index(rel, tenant, is_led_by);
		if (index == NULL)
			return false;
		*units = add_units(sweep, rel, index, tenant, *units);
		done = bms_add_member(done, tenant);
		index_close(index, NoLock);
	}
	return true;
}

/*
 * The index that tells which rows have a column under a key, or NULL.  A
 * snapshot is active, under which it is going to be read.
 */
Relation
sweep_index_of_keys(Relation rel, AttrNumber attnum)
{
	return find_index(rel, attnum, is_on_key_ids);
}

/* Call found for each row that such an index has under a key of the sweep. */
void
sweep_index_look(Sweep *sweep, Relation rel, Relation index, sweep_found_fn found,
				 void *arg)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = index_scan_begin(rel, index, GetActiveSnapshot(), 1);
	HASH_SEQ_STATUS status;
	SweepKey   *key;

	hash_seq_init(&status, sweep->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		rescan_for(scan, index, Int64GetDatum(key->key_id));
		while (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			found(sweep, rel, slot, arg);
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}
