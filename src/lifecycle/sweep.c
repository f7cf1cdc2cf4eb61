/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Going through stored values: which keys are looked for, and where.
 *
 * A sweep takes a set of keys, so that one pass over a table serves all tenants
 * that are due.  sweep_reencrypt.c seals what is under them anew, sweep_scan.c
 * looks whether anything is, and sweep_index.c knows which indexes spare both a
 * look at every row.
 *
 * Work on a table is done as its owner, in a security-restricted operation: an
 * expression over the row or a trigger of theirs can do no more than they may.
 * session_replication_role is replica, so that triggers of applications do not
 * fire; row_security is off, and FORCE ROW LEVEL SECURITY does not hold the
 * owner up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "keys/catalog.h"
#include "lifecycle/sweep.h"
#include "tables/protection.h"
#include "tables/registry.h"

/* An empty set, whose memory is in context */
Sweep *
sweep_create(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Sweep	   *sweep = palloc0(sizeof(Sweep));
	HASHCTL		ctl = {0};

	sweep->context = context;
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(SweepKey);
	ctl.hcxt = context;
	sweep->keys = hash_create("envelope sweep", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	initStringInfo(&sweep->columns);
	MemoryContextSwitchTo(oldcontext);
	return sweep;
}

/* Add a key of a tenant (UTF-8). */
void
sweep_add_key(Sweep *sweep, int64 key_id, const char *tenant)
{
	char	   *copy = MemoryContextStrdup(sweep->context, tenant);
	SweepKey   *key = hash_search(sweep->keys, &key_id, HASH_ENTER, NULL);

	memset((char *) key + sizeof(key->key_id), 0, sizeof(*key) - sizeof(key->key_id));
	key->tenant = copy;
}

/* The qualified name of a table, palloc'd */
char *
sweep_table_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/*
 * Become the owner of a table, see the file's header, until table_scope_end.
 */
void
table_scope_begin(TableScope *scope, Oid owner)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"session_replication_role", "replica"},
		{"row_security", "off"}
	};

	GetUserIdAndSecContext(&scope->user, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	scope->guc_level = NewGUCNestLevel();
	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
table_scope_end(TableScope *scope)
{
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->sec_context);
}

/*
 * The tables of registered columns, for one pass over them; in the sweep's
 * context.
 */
SweepTable *
sweep_tables(Sweep *sweep, int *ntables)
{
	List	   *relids = registry_tables();
	SweepTable *tables = MemoryContextAllocZero(sweep->context,
												sizeof(SweepTable) * Max(list_length(relids), 1));
	ListCell   *cell;

	*ntables = 0;
	sweep->seen = 0;
	sweep->estimated = 0;
	foreach(cell, relids)
	{
		SweepTable *table = &tables[(*ntables)++];
		Relation	rel = try_relation_open(lfirst_oid(cell), AccessShareLock);

		table->relid = lfirst_oid(cell);
		table->end = InvalidBlockNumber;
		if (rel == NULL)
			continue;
		if (rel->rd_rel->reltuples > 0)
			sweep->estimated += (int64) rel->rd_rel->reltuples;
		relation_close(rel, AccessShareLock);
	}
	return tables;
}

/*
 * Tell by a NOTICE which triggers of applications fire all the same: those that
 * are ENABLE ALWAYS or REPLICA.
 */
void
sweep_name_triggers(const SweepTable *tables, int ntables)
{
	for (int i = 0; i < ntables; i++)
	{
		Relation	rel = try_relation_open(tables[i].relid, AccessShareLock);

		if (rel == NULL)
			continue;
		for (int j = 0; rel->trigdesc && j < rel->trigdesc->numtriggers; j++)
		{
			const Trigger *trigger = &rel->trigdesc->triggers[j];

			if ((trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
				 trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA) &&
				TRIGGER_FOR_UPDATE(trigger->tgtype) &&
				trigger->tgfoid != protection_function(SEAL_FUNCTION) &&
				trigger->tgfoid != protection_function(SEAL_GUARD_FUNCTION))
				ereport(NOTICE,
						(errmsg("trigger \"%s\" of table %s fires for each row that is re-encrypted",
								trigger->tgname, sweep_table_name(rel)),
						 errdetail("It is ENABLE ALWAYS or REPLICA.")));
		}
		relation_close(rel, AccessShareLock);
	}
}

/*
 * The key of the set that a column's value is under; NULL where it is not, or
 * the key has turned out to be of no use.
 */
SweepKey *
sweep_key_of(Sweep *sweep, TupleTableSlot *slot, AttrNumber attnum)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attnum, &isnull);
	int64		key_id;
	SweepKey   *key;

	if (isnull || !sealed_value_key(value, &key_id))
		return NULL;
	key = hash_search(sweep->keys, &key_id, HASH_FIND, NULL);
	return key && key->failed == NULL ? key : NULL;
}

/* The place of a value, for a message */
char *
sweep_place(Relation rel, AttrNumber attnum, ItemPointer tid)
{
	return psprintf("%s.%s, ctid (%u,%u)", sweep_table_name(rel),
					quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(rel),
														   attnum - 1)->attname)),
					ItemPointerGetBlockNumber(tid), ItemPointerGetOffsetNumber(tid));
}
