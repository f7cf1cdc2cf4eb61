/*-------------------------------------------------------------------------
 *
 * protection.c
 *	  Which tables are protected, and how.
 *
 * A table is protected if it has the seal trigger; the trigger's arguments name
 * the columns.  So dumps carry what is protected, partitions inherit it, and
 * there is no table of ours that could say something else.
 *
 * What was read is kept for each table asked about, that it is not protected
 * too, until its relcache entry is invalidated: every statement asks for every
 * table it names.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "keys/catalog.h"
#include "tables/protection.h"
#include "tables/value.h"

/* What is known of a table */
typedef struct ProtectionEntry
{
	Oid			relid;			/* the hash key */
	bool		valid;
	Protection *protection;		/* NULL where it is not protected */
} ProtectionEntry;

static HTAB *entries = NULL;

/* Advanced with every invalidation of a relation or function */
static uint64 sequence = 1;

/* The function of the seal trigger, looked up again when functions change */
static Oid	seal_function = InvalidOid;
static bool seal_function_known = false;

static void
forget(ProtectionEntry *entry)
{
	entry->valid = false;
}

static void
forget_all(void)
{
	HASH_SEQ_STATUS status;
	ProtectionEntry *entry;

	if (entries == NULL)
		return;
	hash_seq_init(&status, entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		forget(entry);
}

static void
relcache_changed(Datum arg, Oid relid)
{
	ProtectionEntry *entry;

	sequence++;
	if (!OidIsValid(relid))
		forget_all();
	else if (entries &&
			 (entry = hash_search(entries, &relid, HASH_FIND, NULL)) != NULL)
		forget(entry);
}

static void
functions_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	sequence++;
	seal_function_known = false;
	forget_all();
}

/* Called from _PG_init. */
void
protection_init(void)
{
	CacheRegisterRelcacheCallback(relcache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, functions_changed, (Datum) 0);
}

/*
 * A number that moves when what protection_of said of a table may have changed.
 */
uint64
protection_sequence(void)
{
	return sequence;
}

/* A function in our schema, whoever has made it */
static Oid
named_function(const char *name)
{
	Oid			schema = get_namespace_oid(ENVELOPE_SCHEMA, true);

	/* Not LookupFuncName, which asks for a privilege on the schema. */
	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name),
						   PointerGetDatum(buildoidvector(NULL, 0)),
						   ObjectIdGetDatum(schema));
}

/*
 * Is this function the extension's?  In a database without the extension
 * anybody may own a schema of our schema's name, and functions in it that
 * whoever reads a table must not be made to call.
 */
static bool
is_ours(Oid function)
{
	Oid			extension = get_extension_oid("envelope", true);

	return OidIsValid(extension) &&
		getExtensionOfObject(ProcedureRelationId, function) == extension;
}

/*
 * The function of a trigger of ours; InvalidOid where the extension is not
 * installed.
 */
Oid
protection_function(const char *name)
{
	Oid			function = named_function(name);

	return OidIsValid(function) && is_ours(function) ? function : InvalidOid;
}

/*
 * The function of the seal trigger, as protection_function gives it, at no
 * cost.  One that is not the extension's may yet become it, of which nothing
 * tells: it is asked about again.
 */
Oid
protection_seal_function(void)
{
	if (!seal_function_known)
	{
		/* An invalidation that comes in between makes it unknown again. */
		seal_function_known = true;
		seal_function = named_function(SEAL_FUNCTION);
		if (OidIsValid(seal_function) && !is_ours(seal_function))
		{
			seal_function_known = false;
			seal_function = InvalidOid;
		}
	}
	return seal_function;
}

/*
 * The seal trigger of an open table; NULL where it has none.  Good as long as
 * the relcache entry is.
 */
const Trigger *
protection_trigger(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	Oid			function;

	if (triggers == NULL || !OidIsValid(function = protection_seal_function()))
		return NULL;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		if (triggers->triggers[i].tgfoid == function)
			return &triggers->triggers[i];
	}
	return NULL;
}

/*
 * The number of a column that the trigger's arguments name; 0, with its name in
 * *misfit, where there is none.
 */
static AttrNumber
column_number(Relation rel, const char *name, const char **misfit)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (!attr->attisdropped && strcmp(NameStr(attr->attname), name) == 0)
			return attr->attnum;
	}
	*misfit = name;
	return 0;
}

/* The same for a sidecar or term */
static AttrNumber
bytea_column_number(Relation rel, const char *name, const char **misfit)
{
	AttrNumber	attnum = column_number(rel, name, misfit);

	if (attnum != 0 &&
		TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid != BYTEAOID)
		*misfit = name;
	return attnum;
}

static void
read_column(Relation rel, char **args, ProtectedColumn *column, const char **misfit)
{
	Form_pg_attribute attr;

	column->carrier = column_number(rel, args[0], misfit);
	column->sidecar = bytea_column_number(rel, args[1], misfit);
	column->term = args[2][0] ? bytea_column_number(rel, args[2], misfit) : 0;
	column->context = pstrdup(args[3]);
	if (*misfit)
		return;
	attr = TupleDescAttr(RelationGetDescr(rel), column->carrier - 1);
	column->type = attr->atttypid;
	column->typmod = attr->atttypmod;
	column->collation = attr->attcollation;
	attr = TupleDescAttr(RelationGetDescr(rel), column->sidecar - 1);
	column->not_null = attr->attnotnull;
}

/*
 * The protected column that a word of the trigger's arguments names; any, with
 * its name in *misfit, where there is none.
 */
static ProtectedColumn *
named_column(Relation rel, Protection *protection, const char *name,
			 const char **misfit)
{
	AttrNumber	carrier = column_number(rel, name, misfit);

	for (int i = 0; i < protection->ncolumns; i++)
	{
		if (protection->columns[i].carrier == carrier)
			return &protection->columns[i];
	}
	*misfit = name;
	return &protection->columns[0];
}

/* The transaction that made a trigger what it is */
static TransactionId
trigger_xmin(Oid trigger)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	TransactionId xmin = InvalidTransactionId;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return xmin;
}

/*
 * Has a table been switched live further than this transaction's snapshots see?
 *
 * On a primary everybody with an older snapshot was waited for.  On a standby
 * nobody was; there a snapshot may show rows as they were before they had terms,
 * or were sealed.
 */
bool
protection_is_ahead(const Protection *protection)
{
	return TransactionIdIsValid(protection->switched) &&
		!TransactionIdPrecedes(protection->switched, TransactionXmin);
}

/* May a statement see rows whose values are in the carriers? */
bool
protection_reads_carriers(const Protection *protection)
{
	return protection->live || protection_is_ahead(protection);
}

/* What the words at the end of the trigger's arguments say */
static void
read_words(Relation rel, Protection *protection, const char **misfit)
{
	int			next = 0;
	bool		was_live = false;

	while (next < list_length(protection->words))
	{
		const char *word = list_nth(protection->words, next++);
		const char *operand = next < list_length(protection->words) ?
			list_nth(protection->words, next) : "";

		if (strcmp(word, SEAL_ARG_LIVE) == 0)
			protection->live = true;
		else if (strcmp(word, SEAL_ARG_FILE) == 0)
		{
			protection->old_file |= atooid(operand) == rel->rd_rel->relfilenode;
			was_live = true;
			next++;
		}
		else if (strcmp(word, SEAL_ARG_STATISTICS) == 0)
			next++;				/* doctor reads it */
		else if (strcmp(word, SEAL_ARG_NOT_NULL) == 0)
		{
			named_column(rel, protection, operand, misfit)->not_null = true;
			next++;
		}
		else if (strcmp(word, SEAL_ARG_CLEAR) == 0)
		{
			named_column(rel, protection, operand, misfit)->clear = true;
			next++;
		}
	}
	if (RecoveryInProgress() && (protection->live || was_live))
		protection->switched = trigger_xmin(protection_trigger(rel)->tgoid);
}

/*
 * How an open table is protected, palloc'd; NULL where it is not, or (*misfit,
 * else NULL) where its trigger's arguments name a column that does not fit.
 */
Protection *
protection_try_read(Relation rel, const char **misfit)
{
	const Trigger *trigger = protection_trigger(rel);
	Protection *protection;
	int			nargs;
	int			next = 1;

	*misfit = NULL;
	if (trigger == NULL)
		return NULL;
	nargs = trigger->tgnargs;
	protection = palloc0(offsetof(Protection, columns) +
						 (1 + nargs / SEAL_ARGS_PER_COLUMN) * sizeof(ProtectedColumn));
	protection->relid = RelationGetRelid(rel);
	protection->tenant = column_number(rel, nargs > 0 ? trigger->tgargs[0] : "", misfit);
	if (*misfit)
		return NULL;
	protection->tenant_type =
		TupleDescAttr(RelationGetDescr(rel), protection->tenant - 1)->atttypid;
	if (!value_is_tenant_type(protection->tenant_type))
		*misfit = trigger->tgargs[0];
	while (next + SEAL_ARGS_PER_COLUMN <= nargs &&
		   strcmp(trigger->tgargs[next], SEAL_ARG_END) != 0)
	{
		read_column(rel, &trigger->tgargs[next],
					&protection->columns[protection->ncolumns++], misfit);
		next += SEAL_ARGS_PER_COLUMN;
	}
	for (next++; next < nargs; next++)
		protection->words = lappend(protection->words, pstrdup(trigger->tgargs[next]));
	read_words(rel, protection, misfit);
	return *misfit ? NULL : protection;
}

/*
 * The same; 55000 where its trigger's arguments do not fit the table.
 */
Protection *
protection_read(Relation rel)
{
	const char *misfit;
	Protection *protection = protection_try_read(rel, &misfit);

	if (misfit)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" does not fit table \"%s\"", SEAL_TRIGGER,
						RelationGetRelationName(rel)),
				 errdetail("Its arguments name column \"%s\", which does not exist or is of another type.",
						   misfit)));
	return protection;
}

static Protection *
copy_protection(const Protection *protection)
{
	Size		size = offsetof(Protection, columns) +
		protection->ncolumns * sizeof(ProtectedColumn);
	Protection *copy = palloc(size);

	memcpy(copy, protection, size);
	copy->words = NIL;
	for (int i = 0; i < copy->ncolumns; i++)
		copy->columns[i].context = pstrdup(protection->columns[i].context);
	return copy;
}

static void
free_protection(Protection *protection)
{
	if (protection == NULL)
		return;
	for (int i = 0; i < protection->ncolumns; i++)
		pfree(protection->columns[i].context);
	pfree(protection);
}

/* The place of a table among what is known */
static ProtectionEntry *
find_entry(Oid relid)
{
	ProtectionEntry *entry;
	bool		found;

	if (entries == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(ProtectionEntry);
		ctl.hcxt = CacheMemoryContext;
		entries = hash_create("envelope protected tables", 256, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(entries, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->protection = NULL;
	}
	return entry;
}

/* Read how a table is protected, and keep it unless it changed meanwhile. */
static Protection *
learn(Oid relid)
{
	Relation	rel = RelationIdGetRelation(relid);
	Protection *protection;
	ProtectionEntry *entry;
	MemoryContext oldcontext;
	uint64		then = sequence;

	if (!RelationIsValid(rel))
		return NULL;
	protection = protection_read(rel);
	RelationClose(rel);

	entry = find_entry(relid);
	free_protection(entry->protection);
	entry->protection = NULL;
	if (protection)
	{
		oldcontext = MemoryContextSwitchTo(CacheMemoryContext);
		entry->protection = copy_protection(protection);
		MemoryContextSwitchTo(oldcontext);
	}
	entry->valid = then == sequence;
	return protection;
}

/* What is known of a table; NULL where it has to be read */
static const ProtectionEntry *
known_entry(Oid relid)
{
	const ProtectionEntry *entry = entries ?
		hash_search(entries, &relid, HASH_FIND, NULL) : NULL;

	return entry && entry->valid ? entry : NULL;
}

/*
 * Is a table or partition protected?  The caller holds a lock on it.
 */
bool
protection_exists(Oid relid)
{
	const ProtectionEntry *entry;

	if (relid < FirstNormalObjectId || !OidIsValid(protection_seal_function()))
		return false;
	entry = known_entry(relid);
	return entry ? entry->protection != NULL : learn(relid) != NULL;
}

/*
 * How a table or partition is protected, palloc'd in the current context; NULL
 * where it is not.  The caller holds a lock on it.
 */
Protection *
protection_of(Oid relid)
{
	const ProtectionEntry *entry;

	if (relid < FirstNormalObjectId || !OidIsValid(protection_seal_function()))
		return NULL;
	entry = known_entry(relid);
	if (entry)
		return entry->protection ? copy_protection(entry->protection) : NULL;
	return learn(relid);
}

/*
 * The ids of all protected tables and partitions of this database, as the
 * catalogs are now.
 */
List *
protected_relations(void)
{
	Oid			function = protection_seal_function();
	List	   *result = NIL;
	Relation	catalog;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(function))
		return NIL;
	catalog = table_open(TriggerRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (trigger->tgfoid == function)
			result = lappend_oid(result, trigger->tgrelid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

pg_noreturn static void
refuse_missing(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("there is no relation with OID %u", relid)));
}

/*
 * Open what an argument names, which the caller has to own.  Whoever does not
 * gets no lock on it, nor waits for one.  42P01, 42501.
 */
Relation
owned_relation_open(Oid relid, LOCKMODE lockmode)
{
	Relation	rel;
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		refuse_missing(relid);
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   name);
	rel = try_relation_open(relid, lockmode);
	if (rel == NULL)
		refuse_missing(relid);
	return rel;
}
