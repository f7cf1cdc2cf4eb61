/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  What keeps the key tables sound and memory true to them.
 *
 * A row trigger, ENABLE ALWAYS, stands on each key table, so that it fires for
 * whoever writes: our functions, a superuser's SQL, a restore, the apply worker
 * of logical replication.  It
 *
 * - refuses what would lose a key or give it to another: DELETE, TRUNCATE,
 *   changes of what a key is bound to, state changes that lead back;
 * - invalidates the table's relcache entry, which drops the memo (keys/memo.c)
 *   of every backend when the change commits;
 * - remembers tenants that are suspended, or lose a key, and evicts their keys
 *   from shared memory after commit: then no transaction that begins can find
 *   the old row any more, and the generation that the eviction advances keeps
 *   whoever has read it before from storing the key.
 *
 * A prepared transaction may be committed by a process that has not loaded
 * this module's memory of it, so PREPARE TRANSACTION is refused after such a
 * change.
 *
 * Two hooks stand beside the triggers: DROP EXTENSION is refused while a key
 * is alive, and triggers that ALTER TABLE ... ENABLE TRIGGER has made ordinary
 * ones, as pg_restore --disable-triggers does, are made ALWAYS again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "keys/cache.h"
#include "keys/catalog.h"
#include "keys/encoding.h"
#include "keys/guard.h"
#include "keys/pending.h"
#include "kms/options.h"
#include "settings.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(envelope_guard_keks);
PG_FUNCTION_INFO_V1(envelope_guard_tenants);
PG_FUNCTION_INFO_V1(envelope_guard_tenant_keys);

/* The trigger, on each of guarded_tables */
#define GUARD_TRIGGER "guard"

static const char *const guarded_tables[] = {"keks", "tenants", "tenant_keys", "audit_log"};

/*
 * Tenants (UTF-8; NULL for all) to evict when this transaction commits, see
 * pending.c
 */
static List *pending_evictions = NIL;

static object_access_hook_type prev_object_access_hook = NULL;
static ProcessUtility_hook_type prev_ProcessUtility_hook = NULL;

/*
 * Evict the keys of a tenant, or (NULL) of the database, from memory when this
 * transaction commits.
 */
static void
evict_at_commit(const char *tenant)
{
	size_t		len = tenant ? strlen(tenant) : 0;

	if (shmem_is_ready())
		pending_add(&pending_evictions,
					tenant ? utf8_from_server(tenant, &len) : NULL);
}

/* Does not throw. */
static void
evict_pending(void)
{
	ListCell   *cell;

	foreach(cell, pending_evictions)
	{
		Pending    *eviction = lfirst(cell);

		if (eviction->subject)
			(void) dek_cache_evict_tenant(MyDatabaseId, eviction->subject);
		else
			(void) dek_cache_evict_database(MyDatabaseId);
	}
	pending_evictions = NIL;
}

static void
at_transaction_end(XactEvent event, void *arg)
{

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (pending_evictions != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that suspends a tenant, or destroys or drops keys")));
			break;
		case XACT_EVENT_COMMIT:
			evict_pending();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			pending_evictions = NIL;
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent_subid, void *arg)
{
	pending_at_subtransaction_end(&pending_evictions, event, subid, parent_subid);
}

pg_noreturn static void
refuse(Relation rel, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s in %s.%s", what, ENVELOPE_SCHEMA,
					RelationGetRelationName(rel)),
			 errdetail("Values sealed under a key are lost with it.")));
}

/* Is a column the same in both rows? */
static bool
unchanged(TriggerData *trigdata, AttrNumber attnum)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	Form_pg_attribute attr = TupleDescAttr(desc, attnum - 1);
	bool		old_null;
	bool		new_null;
	Datum		old_value = heap_getattr(trigdata->tg_trigtuple, attnum, desc, &old_null);
	Datum		new_value = heap_getattr(trigdata->tg_newtuple, attnum, desc, &new_null);

	if (old_null || new_null)
		return old_null == new_null;
	return datum_image_eq(old_value, new_value, attr->attbyval, attr->attlen);
}

static void
require_unchanged(TriggerData *trigdata, AttrNumber attnum)
{
	Relation	rel = trigdata->tg_relation;

	if (!unchanged(trigdata, attnum))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of %s.%s cannot be changed",
						NameStr(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname),
						ENVELOPE_SCHEMA, RelationGetRelationName(rel))));
}

/* A text column of a row; never null where it is used */
static char *
text_of(TriggerData *trigdata, HeapTuple tuple, AttrNumber attnum)
{
	char	   *value = SPI_getvalue(tuple, RelationGetDescr(trigdata->tg_relation), attnum);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("a column of %s.%s is null", ENVELOPE_SCHEMA,
						RelationGetRelationName(trigdata->tg_relation))));
	return value;
}

/*
 * What all guards begin with.  Returns the row that is to be stored; DELETE
 * and TRUNCATE are refused unless deletable.
 */
static HeapTuple
begin_guard(FunctionCallInfo fcinfo, bool deletable)
{
	TriggerData *trigdata;
	Relation	rel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger")));
	trigdata = (TriggerData *) fcinfo->context;
	rel = trigdata->tg_relation;

	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		refuse(rel, "rows cannot be truncated");
	if (!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called before row changes")));
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) && !deletable)
		refuse(rel, "rows cannot be deleted");

	CacheInvalidateRelcache(rel);
	return TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
		trigdata->tg_newtuple : trigdata->tg_trigtuple;
}

pg_noreturn static void
refuse_transition(Relation rel, const char *from, const char *to)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a row of %s.%s cannot go from state \"%s\" to \"%s\"",
					ENVELOPE_SCHEMA, RelationGetRelationName(rel), from, to)));
}

/*
 * Refuse (22023) a KEK with a secret in it, as far as names tell, however the
 * row comes in.  Nothing of it is shown but the name.
 */
static void
refuse_secrets(TriggerData *trigdata, HeapTuple row)
{
	char	   *uri = text_of(trigdata, row, Anum_keks_uri);
	bool		isnull;
	Datum		options = heap_getattr(row, Anum_keks_options,
									   RelationGetDescr(trigdata->tg_relation), &isnull);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (strpbrk(uri, "@?") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the URI of a KEK must not hold credentials"),
				 errhint("Put them into a profile of envelope.credentials_file, and name that in the option \"profile\".")));
	if (isnull)
		return;
	iterator = JsonbIteratorInit(&DatumGetJsonbP(options)->root);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			char	   *name = pnstrdup(value.val.string.val, value.val.string.len);

			if (option_is_secret(name))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" of a KEK would hold a secret", name),
						 errhint("Put it into a profile of envelope.credentials_file, and name that in the option \"profile\".")));
			pfree(name);
		}
	}
}

/*
 * Trigger on envelope.keks: what a KEK is never changes, and one that is used
 * stays.  Who makes a tenant locks the KEK's row, and DELETE has locked it too
 * when it comes here.
 */
Datum
envelope_guard_keks(PG_FUNCTION_ARGS)
{
	HeapTuple	row = begin_guard(fcinfo, true);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		char	   *name = text_of(trigdata, row, Anum_keks_name);

		if (catalog_kek_is_used(name))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("KEK \"%s\" is in use", name),
					 errdetail("Keys of tenants are wrapped under it.")));
	}
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		require_unchanged(trigdata, Anum_keks_name);
		require_unchanged(trigdata, Anum_keks_uri);
	}
	if (!TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		refuse_secrets(trigdata, row);
	return PointerGetDatum(row);
}

static bool
tenant_may_go(TenantState from, TenantState to)
{
	switch (from)
	{
		case TENANT_ACTIVE:
			return to == TENANT_SUSPENDED || to == TENANT_SCHEDULED;
		case TENANT_SUSPENDED:
			return to == TENANT_ACTIVE || to == TENANT_SCHEDULED;
		case TENANT_SCHEDULED:
			return to != TENANT_SCHEDULED;
		case TENANT_DESTROYED:
			return false;
	}
	return false;
}

/* Trigger on envelope.tenants */
Datum
envelope_guard_tenants(PG_FUNCTION_ARGS)
{
	HeapTuple	row = begin_guard(fcinfo, false);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	char	   *tenant = text_of(trigdata, row, Anum_tenants_tenant_id);
	char	   *to = text_of(trigdata, row, Anum_tenants_state);

	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		char	   *from = text_of(trigdata, trigdata->tg_trigtuple, Anum_tenants_state);

		require_unchanged(trigdata, Anum_tenants_tenant_id);
		if (strcmp(from, to) != 0 &&
			!tenant_may_go(tenant_state_parse(from), tenant_state_parse(to)))
			refuse_transition(trigdata->tg_relation, from, to);
	}
	else
	{
		size_t		len = strlen(tenant);

		(void) utf8_from_server(tenant, &len);
		if (len == 0 || len > TENANT_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("a tenant id has 1 to %d bytes in UTF-8", TENANT_MAX_BYTES)));
	}

	if (tenant_state_parse(to) != TENANT_ACTIVE)
		evict_at_commit(tenant);
	return PointerGetDatum(row);
}

static bool
key_may_go(KeyState from, KeyState to)
{
	switch (from)
	{
		case KEY_ACTIVE:
			return to == KEY_RETIRED;
		case KEY_RETIRED:
			return to == KEY_SCHEDULED;
		case KEY_SCHEDULED:
			return to == KEY_RETIRED || to == KEY_DESTROYED;
		case KEY_DESTROYED:
			return false;
	}
	return false;
}

/* With a tenant go its keys, whatever state they are in. */
static bool
tenant_is_destroyed(const char *tenant)
{
	size_t		len = strlen(tenant);
	TenantRow	row;

	return catalog_read_tenant(utf8_from_server(tenant, &len), &row) &&
		row.state == TENANT_DESTROYED;
}

/* Trigger on envelope.tenant_keys */
Datum
envelope_guard_tenant_keys(PG_FUNCTION_ARGS)
{
	HeapTuple	row = begin_guard(fcinfo, false);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	char	   *to = text_of(trigdata, row, Anum_tenant_keys_state);

	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		char	   *from = text_of(trigdata, trigdata->tg_trigtuple, Anum_tenant_keys_state);

		require_unchanged(trigdata, Anum_tenant_keys_key_id);
		require_unchanged(trigdata, Anum_tenant_keys_tenant_id);
		require_unchanged(trigdata, Anum_tenant_keys_purpose);
		require_unchanged(trigdata, Anum_tenant_keys_key_check);
		if (strcmp(from, to) != 0 &&
			!key_may_go(key_state_parse(from), key_state_parse(to)) &&
			!(key_state_parse(to) == KEY_DESTROYED && tenant_is_destroyed(
																		  text_of(trigdata, row, Anum_tenant_keys_tenant_id))))
			refuse_transition(trigdata->tg_relation, from, to);
	}

	if (key_state_parse(to) == KEY_DESTROYED)
		evict_at_commit(text_of(trigdata, row, Anum_tenant_keys_tenant_id));
	return PointerGetDatum(row);
}

/*
 * Is this the key table of that name?  The hooks see every database of the
 * server, and in one without the extension anybody may own a schema of our
 * schema's name, with whatever in it.
 */
static bool
is_key_table(Oid relid, const char *name)
{
	Oid			extension;

	if (relid != catalog_relation_if_any(name))
		return false;
	extension = get_extension_oid("envelope", true);
	return OidIsValid(extension) &&
		getExtensionOfObject(RelationRelationId, relid) == extension;
}

/*
 * Is there a key in the table that is not destroyed?  Its indexes may have
 * been dropped already.
 */
static bool
live_keys_exist(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;

		(void) heap_getattr(tuple, Anum_tenant_keys_wrapped_dek, desc, &isnull);
		found = !isnull;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/* Drop with the database its keys in memory, and refuse to drop live keys. */
static void
object_accessed(ObjectAccessType access, Oid class_id, Oid object_id,
				int sub_id, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);

	if (access != OAT_DROP || sub_id != 0)
		return;
	if (class_id == DatabaseRelationId)
		(void) dek_cache_evict_database(object_id);
	else if (class_id == RelationRelationId &&
			 is_key_table(object_id, "tenant_keys"))
	{
		if (!envelope_allow_drop_extension && live_keys_exist(object_id))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop the keys of tenants while they are alive"),
					 errdetail("Everything sealed under them would be lost."),
					 errhint("Dump the schema \"%s\" first; a superuser can then set envelope.allow_drop_extension.",
							 ENVELOPE_SCHEMA)));
		evict_at_commit(NULL);
	}
}

/*
 * May this ALTER TABLE make ordinary triggers of ours?
 */
bool
guard_enables_triggers(const AlterTableStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->cmds)
	{
		switch (lfirst_node(AlterTableCmd, cell)->subtype)
		{
			case AT_EnableTrig:
			case AT_EnableTrigAll:
			case AT_EnableTrigUser:
			case AT_EnableReplicaTrig:
				return true;
			default:
				break;
		}
	}
	return false;
}

/* Make the trigger of a guarded table fire always again. */
static void
enable_always(Oid relid)
{
	for (int i = 0; i < lengthof(guarded_tables); i++)
	{
		char		command[128];

		if (!is_key_table(relid, guarded_tables[i]))
			continue;
		snprintf(command, sizeof(command),
				 "ALTER TABLE %s.%s ENABLE ALWAYS TRIGGER " GUARD_TRIGGER
				 ", ENABLE ALWAYS TRIGGER " GUARD_TRIGGER "_truncate",
				 ENVELOPE_SCHEMA, guarded_tables[i]);
		if (SPI_connect() != SPI_OK_CONNECT ||
			SPI_execute(command, false, 0) != SPI_OK_UTILITY ||
			SPI_finish() != SPI_OK_FINISH)
			elog(ERROR, "could not enable the triggers of %s.%s",
				 ENVELOPE_SCHEMA, guarded_tables[i]);
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Oid			relid = InvalidOid;

	if (IsA(pstmt->utilityStmt, AlterTableStmt) &&
		guard_enables_triggers((AlterTableStmt *) pstmt->utilityStmt))
		relid = RangeVarGetRelid(((AlterTableStmt *) pstmt->utilityStmt)->relation,
								 NoLock, true);

	if (prev_ProcessUtility_hook)
		prev_ProcessUtility_hook(pstmt, query, read_only_tree, context, params,
								 env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								env, dest, qc);

	if (OidIsValid(relid))
	{
		CommandCounterIncrement();
		enable_always(relid);
	}
}

/* Called from _PG_init. */
void
guard_install_hooks(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_object_access_hook = object_access_hook;
	object_access_hook = object_accessed;
	prev_ProcessUtility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
