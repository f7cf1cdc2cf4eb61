/*-------------------------------------------------------------------------
 *
 * seal.c
 *	  The trigger that seals what is written to a protected table.
 *
 * It stands before each row that is inserted or updated, ENABLE ALWAYS, and
 * after the triggers of the application.  What comes in a carrier is plaintext,
 * whatever it looks like: it is sealed into the sidecar for the row's own
 * tenant, its term is made, and the carrier becomes NULL.  For a carrier that
 * is NULL the sidecar says what is meant:
 *
 *	- NULL: the value is NULL.  The planner sets it so where a statement assigns
 *	  the carrier.
 *	- what the row had: nothing is done, and no key is needed, unless the row
 *	  goes to another tenant; then it is opened and sealed anew.
 *	- another sealed value, as restores and replication bring it: it is stored as
 *	  it is, without a key, if its key is the row's tenant's and may still be
 *	  stored under.  A key that this database does not have may come later.
 *
 * While a table is protected live there is a time when a column stays in the
 * clear, and only its term is kept: until every row has one, and the index on
 * them is there.
 *
 * The trigger is also what keeps a key from being destroyed under a row: no
 * value is stored under a key that is scheduled.  So it asks the memo for each
 * value, after the table is locked, and never what it knew before.
 *
 * Constraints on carriers were moved here, because on disk they are NULL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "errors.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "keys/memo.h"
#include "settings.h"
#include "shmem.h"
#include "tables/functions.h"
#include "tables/implied.h"
#include "tables/protection.h"
#include "tables/seal.h"
#include "tables/utility.h"
#include "tables/value.h"

PG_FUNCTION_INFO_V1(envelope_seal);

static HTAB *tables = NULL;

/* What replaced tables may still be in use until the transaction ends */
static List *stale_contexts = NIL;

static void
relcache_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	SealTable  *table;

	if (tables == NULL)
		return;
	if (OidIsValid(relid))
	{
		table = hash_search(tables, &relid, HASH_FIND, NULL);
		if (table)
			table->valid = false;
		return;
	}
	hash_seq_init(&status, tables);
	while ((table = hash_seq_search(&status)) != NULL)
		table->valid = false;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	foreach(cell, stale_contexts)
		MemoryContextDelete(lfirst(cell));
	list_free(stale_contexts);
	stale_contexts = NIL;
}

/* Called from _PG_init. */
void
seal_init(void)
{
	CacheRegisterRelcacheCallback(relcache_changed, (Datum) 0);
	RegisterXactCallback(at_transaction_end, NULL);
}

/* Find or make the place of a table. */
static SealTable *
find_table(Oid relid)
{
	SealTable  *table;
	bool		found;

	if (tables == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(SealTable);
		ctl.hcxt = CacheMemoryContext;
		tables = hash_create("envelope sealed tables", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	table = hash_search(tables, &relid, HASH_ENTER, &found);
	if (!found)
	{
		table->context = NULL;
		table->valid = false;
	}
	return table;
}

/* Read how a table is protected, for good. */
static void
prepare_table(SealTable *table, Relation rel)
{
	MemoryContext oldcontext;

	if (table->context)
	{
		oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		stale_contexts = lappend(stale_contexts, table->context);
		table->context = NULL;
		MemoryContextSwitchTo(oldcontext);
	}

	/* An invalidation while this is read leaves it invalid. */
	table->valid = true;
	table->context = AllocSetContextCreate(CacheMemoryContext, "envelope sealed table",
										   ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(table->context);
	table->protection = protection_read(rel);
	if (table->protection == NULL)
		elog(ERROR, "table \"%s\" is not protected", RelationGetRelationName(rel));
	table->columns = palloc0(table->protection->ncolumns * sizeof(SealColumn));
	for (int i = 0; i < table->protection->ncolumns; i++)
	{
		SealColumn *column = &table->columns[i];

		column->at = &table->protection->columns[i];
		value_type_init(&column->vt, column->at->type, column->at->typmod,
						table->context);
		column->context_len = strlen(column->at->context);
		column->context = utf8_from_server(column->at->context, &column->context_len);
	}
	table->has_checks = seal_has_checks(rel, table->protection);
	table->implied = implied_checks(rel, table->protection);
	MemoryContextSwitchTo(oldcontext);
}

static const SealTable *
get_table(Relation rel)
{
	SealTable  *table = find_table(RelationGetRelid(rel));

	if (!table->valid)
	{
		PG_TRY();
		{
			prepare_table(table, rel);
		}
		PG_CATCH();
		{
			table->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return table;
}

/* What implied_checks says of a table that has the trigger */
const bool *
seal_implied_checks(Relation rel)
{
	return get_table(rel)->implied;
}

static const char *
column_name(const SealRow *row, AttrNumber attnum)
{
	return NameStr(TupleDescAttr(RelationGetDescr(row->rel), attnum - 1)->attname);
}

static void
set_value(SealRow *row, AttrNumber attnum, Datum value)
{
	row->values[attnum - 1] = value;
	row->nulls[attnum - 1] = false;
	row->changed = true;
}

static void
set_null(SealRow *row, AttrNumber attnum)
{
	if (attnum == 0 || row->nulls[attnum - 1])
		return;
	row->values[attnum - 1] = (Datum) 0;
	row->nulls[attnum - 1] = true;
	row->changed = true;
}

static void
report_null(const SealRow *row, AttrNumber attnum)
{
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
					column_name(row, attnum), RelationGetRelationName(row->rel)),
			 errtablecol(row->rel, attnum)));
}

/*
 * Raise (23502) what PostgreSQL would say of a null before it looks at CHECK
 * constraints, where a row has one.  Generated columns are yet to be made.
 */
void
seal_report_nulls(const SealRow *row)
{
	TupleDesc	desc = RelationGetDescr(row->rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attnotnull && !att->attgenerated && row->nulls[i])
			report_null(row, att->attnum);
	}
}

/*
 * The tenant of a row, which has a value to be sealed.  22004 where it is null;
 * where the column is NOT NULL, what would have been said of it without us.
 */
static const char *
tenant_of(const SealRow *row, const Datum *values, const bool *nulls)
{
	const Protection *protection = row->table->protection;

	if (nulls[protection->tenant - 1] &&
		TupleDescAttr(RelationGetDescr(row->rel), protection->tenant - 1)->attnotnull)
		report_null(row, protection->tenant);
	if (nulls[protection->tenant - 1])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column \"%s\" must not be null beside a protected value",
						column_name(row, protection->tenant)),
				 errdetail("It says whose key seals the row."),
				 errtablecol(row->rel, protection->tenant)));
	return value_tenant(protection->tenant_type, values[protection->tenant - 1]);
}

/* The label of a column's values in the new row */
ValueLabel
seal_label(SealRow *row, const SealColumn *column)
{
	ValueLabel	label;

	if (row->tenant == NULL)
		row->tenant = tenant_of(row, row->values, row->nulls);
	label.tenant = row->tenant;
	label.context = column->context;
	label.context_len = column->context_len;
	return label;
}

/* Make the term of a plaintext that has been opened or is to be sealed. */
static void
set_term(SealRow *row, const SealColumn *column, const ValueLabel *label,
		 Datum value)
{
	uint8		term[TERM_MAX_BYTES];
	bytea	   *result;
	const char *text;
	size_t		len;

	if (column->at->term == 0)
		return;
	text = value_to_term_text(&column->vt, value, &len);

	keyring_term(label, column->vt.kind, text, len, term);
	result = palloc(VARHDRSZ + TERM_BYTES);
	SET_VARSIZE(result, VARHDRSZ + TERM_BYTES);
	memcpy(VARDATA(result), term, TERM_BYTES);
	set_value(row, column->at->term, PointerGetDatum(result));
}

/* Do two rows hold the same bytes in a column of type bytea? */
bool
seal_same(const SealRow *row, AttrNumber attnum)
{
	Datum		a = row->values[attnum - 1];
	Datum		b = row->old_values[attnum - 1];

	if (row->nulls[attnum - 1] || row->old_nulls[attnum - 1])
		return row->nulls[attnum - 1] && row->old_nulls[attnum - 1];
	return datumIsEqual(a, b, false, -1) || datum_image_eq(a, b, false, -1);
}

/* Keep what the row had before. */
static void
keep_old(SealRow *row, const ProtectedColumn *at)
{
	set_value(row, at->sidecar, row->old_values[at->sidecar - 1]);
	if (at->term == 0)
		return;
	if (row->old_nulls[at->term - 1])
		set_null(row, at->term);
	else
		set_value(row, at->term, row->old_values[at->term - 1]);
}

/*
 * Seal what came in the carrier.  If the row held the same value before, under
 * the key that seals now, its bytes stay: an application that saves a whole row
 * changes nothing.  It must not tell those that it was the same who may not open
 * values: theirs are sealed anew.
 */
static void
seal_carrier(SealRow *row, const SealColumn *column)
{
	const ProtectedColumn *at = column->at;
	Datum		value = row->values[at->carrier - 1];
	ValueLabel	label = seal_label(row, column);
	const char *plaintext;
	size_t		len;

	if (!row->nulls[at->sidecar - 1] &&
		(row->old_values == NULL || !seal_same(row, at->sidecar)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("columns \"%s\" and \"%s\" cannot both be given a value",
						column_name(row, at->carrier), column_name(row, at->sidecar))));

	plaintext = value_to_plaintext(&column->vt, value, &len);
	if (row->old_values && !row->tenant_moved && !row->old_nulls[at->sidecar - 1] &&
		(at->term == 0 || !row->old_nulls[at->term - 1]) &&
		keyring_holds(&label, DatumGetByteaPP(row->old_values[at->sidecar - 1]),
					  column->vt.kind, plaintext, len) &&
		functions_may_open())
		keep_old(row, at);
	else
	{
		set_value(row, at->sidecar,
				  PointerGetDatum(keyring_seal(&label, SEALED_GCM, column->vt.kind,
											   plaintext, len)));
		set_term(row, column, &label, value);
	}
	set_null(row, at->carrier);
}

/*
 * The parsed header of a sealed value, of which no more is fetched; false where
 * it is none.  Only its key id and algorithm may be used.
 */
static bool
parse_header(Datum sealed, SealedValue *value)
{
	size_t		len = toast_raw_datum_size(sealed) - VARHDRSZ;
	bytea	   *header;

	if (len < SEALED_HEADER_BYTES)
		return false;
	header = DatumGetByteaPSlice(sealed, 0, SEALED_HEADER_BYTES);
	return sealed_parse((const uint8 *) VARDATA(header), len, value);
}

/* Throw (VE005) where nothing more is stored under a key. */
static void
check_key_stores(int64 key_id, KeyState state)
{
	if (state == KEY_SCHEDULED || state == KEY_DESTROYED)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_DESTROYED),
				 errmsg("nothing can be stored under key " INT64_FORMAT " any more", key_id),
				 errdetail(state == KEY_DESTROYED ? "It was destroyed." :
						   "It is about to be destroyed.")));
}

/* May a sealed value that came from elsewhere be stored in this row? */
static void
check_stored(SealRow *row, const SealColumn *column)
{
	Datum		sealed = row->values[column->at->sidecar - 1];
	ValueLabel	label = seal_label(row, column);
	const KeyMemo *key;
	SealedValue value;

	if (!parse_header(sealed, &value))
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_CORRUPT),
				 errmsg("column \"%s\" takes sealed values only",
						column_name(row, column->at->sidecar)),
				 errhint("Write plaintext to column \"%s\".",
						 column_name(row, column->at->carrier))));
	key = memo_key(value.key_id);
	if (key == NULL)
		return;
	if (strcmp(key->tenant, label.tenant) != 0 ||
		key->purpose != algorithm_purpose(value.algorithm))
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_CORRUPT),
				 errmsg("the value of column \"%s\" was sealed for another tenant",
						column_name(row, column->at->sidecar))));
	check_key_stores(value.key_id, key->state);
}

/* Open a value of a column. */
Datum
seal_open(const ValueLabel *label, const SealColumn *column, Datum sealed)
{
	SealedKind	kind;
	struct varlena *plaintext = keyring_open(label, DatumGetByteaPP(sealed), &kind);

	return value_from_plaintext(&column->vt, kind, plaintext);
}

/* Open what the row had under its tenant before. */
static Datum
open_old(SealRow *row, const SealColumn *column)
{
	ValueLabel	label = seal_label(row, column);

	if (column->vt.runs_code)
		functions_require_open();
	label.tenant = tenant_of(row, row->old_values, row->old_nulls);
	return seal_open(&label, column, row->old_values[column->at->sidecar - 1]);
}

/* Do what the sidecar of a carrier that is NULL asks for. */
static void
take_sidecar(SealRow *row, const SealColumn *column)
{
	const ProtectedColumn *at = column->at;

	if (row->nulls[at->sidecar - 1])
		set_null(row, at->term);
	else if (row->old_values == NULL || !seal_same(row, at->sidecar))
		check_stored(row, column);
	else if (row->tenant_moved)
	{
		Datum		value = open_old(row, column);

		set_value(row, at->carrier, value);
		set_null(row, at->sidecar);
		seal_carrier(row, column);
	}
}

/* Has the row the value that it had before, in a column that is not sealed? */
static bool
same_value(const SealRow *row, AttrNumber attnum)
{
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(row->rel), attnum - 1);

	return !row->old_nulls[attnum - 1] &&
		datum_image_eq(row->values[attnum - 1], row->old_values[attnum - 1],
					   attr->attbyval, attr->attlen);
}

/* Keep the term of a column that is not sealed yet. */
static void
fill_term(SealRow *row, const SealColumn *column)
{
	const ProtectedColumn *at = column->at;
	ValueLabel	label;

	if (!row->nulls[at->sidecar - 1])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("column \"%s\" takes no sealed values yet",
						column_name(row, at->sidecar)),
				 errdetail("Table \"%s\" is being protected live.",
						   RelationGetRelationName(row->rel))));
	if (row->nulls[at->carrier - 1])
	{
		set_null(row, at->term);
		return;
	}
	label = seal_label(row, column);
	if (at->term == 0)
		return;
	if (row->old_values && !row->tenant_moved && !row->old_nulls[at->term - 1] &&
		same_value(row, at->carrier))
		set_value(row, at->term, row->old_values[at->term - 1]);
	else
		set_term(row, column, &label, row->values[at->carrier - 1]);
}

/* Raise a NOT NULL constraint of a carrier. */
static void
check_not_null(SealRow *row, const SealColumn *column)
{
	const ProtectedColumn *at = column->at;

	if (at->not_null && row->nulls[at->sidecar - 1])
		report_null(row, at->carrier);
}

/* Does the row go to another tenant? */
static bool
tenant_moves(const SealRow *row)
{
	AttrNumber	tenant = row->table->protection->tenant;
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(row->rel), tenant - 1);

	if (row->nulls[tenant - 1] || row->old_nulls[tenant - 1])
		return row->nulls[tenant - 1] != row->old_nulls[tenant - 1];
	return !datum_image_eq(row->values[tenant - 1], row->old_values[tenant - 1],
						   attr->attbyval, attr->attlen);
}

static void
deform(HeapTuple tuple, TupleDesc desc, Datum **values, bool **nulls)
{
	*values = palloc(desc->natts * sizeof(Datum));
	*nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(tuple, desc, *values, *nulls);
}

/* The new row as it has become, in place of the tuple it was */
static HeapTuple
form_row(const SealRow *row, HeapTuple tuple)
{
	HeapTuple	result;

	if (!row->changed)
		return tuple;
	result = heap_form_tuple(RelationGetDescr(row->rel), row->values, row->nulls);
	result->t_data->t_ctid = tuple->t_data->t_ctid;
	result->t_self = tuple->t_self;
	result->t_tableOid = tuple->t_tableOid;
	return result;
}

static TriggerData *
trigger_data(FunctionCallInfo fcinfo)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger before rows are inserted or updated")));
	return trigdata;
}

/* Seal what is to be sealed of a row. */
static void
seal_columns(SealRow *row)
{
	for (int i = 0; i < row->table->protection->ncolumns; i++)
	{
		const SealColumn *column = &row->table->columns[i];

		if (column->at->clear)
		{
			fill_term(row, column);
			continue;
		}
		if (row->nulls[column->at->carrier - 1])
			take_sidecar(row, column);
		else
			seal_carrier(row, column);
		/* What the CHECK constraint says, which is not looked at (implied.c) */
		if (!row->nulls[column->at->carrier - 1])
			elog(ERROR, "a value was not sealed");
		check_not_null(row, column);
	}
}

/* envelope.seal(): the trigger of protected tables; see the file's header. */
Datum
envelope_seal(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = trigger_data(fcinfo);
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	HeapTuple	tuple = is_update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	int			natts = RelationGetDescr(trigdata->tg_relation)->natts;
	SealRow		row = {0};
	Datum	   *given = NULL;
	bool	   *given_nulls = NULL;

	copy_hide_line();
	shmem_require();
	if (envelope_unreadable == UNREADABLE_NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("protected tables cannot be written while envelope.unreadable is \"null\""),
				 errdetail("What could not be read would be lost.")));

	row.rel = trigdata->tg_relation;
	row.table = get_table(row.rel);
	deform(tuple, RelationGetDescr(row.rel), &row.values, &row.nulls);
	if (is_update)
	{
		deform(trigdata->tg_trigtuple, RelationGetDescr(row.rel),
			   &row.old_values, &row.old_nulls);
		row.tenant_moved = tenant_moves(&row);
	}

	if (row.table->has_checks)
	{
		given = memcpy(palloc(natts * sizeof(Datum)), row.values, natts * sizeof(Datum));
		given_nulls = memcpy(palloc(natts), row.nulls, natts * sizeof(bool));
	}
	seal_columns(&row);
	if (row.table->has_checks)
		seal_check_row(fcinfo, &row, given, given_nulls);
	return PointerGetDatum(form_row(&row, tuple));
}

/*
 * Seal the carriers of a row that is stored already, in place.
 */
void
seal_stored_row(Relation rel, Datum *values, bool *nulls)
{
	SealRow		row = {rel, get_table(rel), values, nulls};
	int			natts = RelationGetDescr(rel)->natts;

	row.old_values = memcpy(palloc(natts * sizeof(Datum)), values, natts * sizeof(Datum));
	row.old_nulls = memcpy(palloc(natts), nulls, natts * sizeof(bool));
	seal_columns(&row);
}

/*
 * The reverse: carriers get their values back, sidecars and terms become NULL.
 */
void
seal_open_row(Relation rel, Datum *values, bool *nulls)
{
	SealRow		row = {rel, get_table(rel), values, nulls};

	for (int i = 0; i < row.table->protection->ncolumns; i++)
	{
		const SealColumn *column = &row.table->columns[i];
		AttrNumber	sidecar = column->at->sidecar;
		ValueLabel	label;

		if (nulls[sidecar - 1])
			continue;
		label = seal_label(&row, column);
		set_value(&row, column->at->carrier,
				  seal_open(&label, column, values[sidecar - 1]));
		set_null(&row, sidecar);
		set_null(&row, column->at->term);
	}
}
