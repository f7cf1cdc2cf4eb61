/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Counting, and opening, every value of a tenant.
 *
 * Looks at all rows whose tenant column says so, of every registered and
 * protected column, under the statement's snapshot, and opens what it finds,
 * keeping nothing.  A value that does not open is counted, not thrown; a KMS
 * that denies or does not answer is thrown, since it says nothing about values.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "crypto/secret.h"
#include "errors.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "lifecycle/sweep.h"
#include "lifecycle/verify.h"
#include "tables/registry.h"
#include "tables/value.h"

/* Open a value and forget it; 0, or the SQLSTATE of why not. */
static int
try_open(const char *tenant, SealedColumn *column, TupleTableSlot *slot,
		 EState *estate, Datum value)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	volatile int sqlstate = 0;
	ValueLabel	label = {tenant};

	/* What an expression of theirs throws is not caught. */
	label.context = registry_context(column, slot, estate, &label.context_len);
	PG_TRY();
	{
		SealedKind	kind;
		struct varlena *plaintext;

		plaintext = keyring_open(&label, DatumGetByteaPP(value), &kind);
		secret_wipe(VARDATA(plaintext), VARSIZE(plaintext) - VARHDRSZ);
	}
	PG_CATCH();
	{
		sqlstate = geterrcode();
		if (sqlstate != ERRCODE_ENVELOPE_CORRUPT &&
			sqlstate != ERRCODE_ENVELOPE_DESTROYED &&
			sqlstate != ERRCODE_ENVELOPE_UNKNOWN_KEY)
			PG_RE_THROW();
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
	}
	PG_END_TRY();
	return sqlstate;
}

static HTAB *
create_counts(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(VerifyCount);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("envelope verify", 16, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Count, and maybe open, the value of a column in a row of the tenant. */
static void
look_at_value(const char *tenant, SealedColumn *column, TupleTableSlot *slot,
			  EState *estate, bool open, HTAB *counts)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column->column, &isnull);
	int64		key_id = NO_KEY;
	int			sqlstate = 0;
	VerifyCount *count;
	bool		found;

	if (isnull)
		return;
	if (!sealed_value_key(value, &key_id))
		key_id = NO_KEY;
	if (open)
		sqlstate = try_open(tenant, column, slot, estate, value);

	count = hash_search(counts, &key_id, HASH_ENTER, &found);
	if (!found)
		count->values = count->failures = count->sqlstate = 0;
	count->values++;
	if (sqlstate != 0 && count->failures++ == 0)
		count->sqlstate = sqlstate;
}

/* Is this a row of the tenant (UTF-8)? */
static bool
row_is_of(const char *tenant, const SealedColumn *column, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column->tenant, &isnull);
	Oid			type = TupleDescAttr(slot->tts_tupleDescriptor, column->tenant - 1)->atttypid;

	return !isnull && strcmp(value_tenant(type, value), tenant) == 0;
}

/* Look at every row of a table. */
static void
look_at_rows(const char *tenant, Relation rel, SealedTable *sealed, bool open,
			 HTAB **counts)
{
	EState	   *estate = CreateExecutorState();
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < sealed->ncolumns; i++)
		{
			if (row_is_of(tenant, &sealed->columns[i], slot))
				look_at_value(tenant, &sealed->columns[i], slot, estate, open, counts[i]);
		}
		MemoryContextSwitchTo(oldcontext);
		ResetPerTupleExprContext(estate);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
}

/* Look at a table, and tell what was found. */
static void
look_at_table(const char *tenant, Relation rel, bool open, verify_fn found, void *arg)
{
	SealedTable *sealed = registry_read(rel);
	HTAB	  **counts;
	TableScope	scope;

	if (sealed == NULL)
		return;
	counts = palloc(sizeof(HTAB *) * sealed->ncolumns);
	for (int i = 0; i < sealed->ncolumns; i++)
		counts[i] = create_counts();

	table_scope_begin(&scope, rel->rd_rel->relowner);
	look_at_rows(tenant, rel, sealed, open, counts);
	table_scope_end(&scope);

	for (int i = 0; i < sealed->ncolumns; i++)
	{
		HASH_SEQ_STATUS status;
		VerifyCount *count;
		const char *column =
			NameStr(TupleDescAttr(RelationGetDescr(rel), sealed->columns[i].column - 1)->attname);

		hash_seq_init(&status, counts[i]);
		while ((count = hash_seq_search(&status)) != NULL)
			found(sweep_table_name(rel), column, count, arg);
		hash_destroy(counts[i]);
	}
}

/*
 * Look at every value of a tenant (in the server's encoding), and open it if
 * asked to.  Throws what keyring_open throws about keys that cannot be had.
 */
void
verify_tenant(const char *tenant, bool open, verify_fn found, void *arg)
{
	size_t		len = strlen(tenant);
	const char *utf8 = utf8_from_server(tenant, &len);
	ListCell   *cell;

	registry_check();
	foreach(cell, registry_tables())
	{
		Relation	rel = try_relation_open(lfirst_oid(cell), AccessShareLock);

		if (rel == NULL)
			continue;
		look_at_table(utf8, rel, open, found, arg);
		relation_close(rel, AccessShareLock);
	}
}
