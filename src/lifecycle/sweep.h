/*-------------------------------------------------------------------------
 *
 * sweep.h
 *	  Going through stored values: re-encrypting them, and looking for keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SWEEP_H
#define ENVELOPE_SWEEP_H

#include "access/tableam.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "storage/block.h"

/* A key whose values are looked for */
typedef struct SweepKey
{
	int64		key_id;			/* the hash key */
	char	   *tenant;			/* UTF-8 */
	int64		rows;			/* re-encrypted */
	int64		hits;			/* found by a scan */
	char	   *where;			/* the first place it was found in */
	int64		unreadable;		/* values that do not open */
	char	   *unreadable_where;	/* the first of them */
	int64		kept;			/* values that a trigger has kept */
	char	   *kept_where;		/* the first of them */
	char	   *failed;			/* why the key cannot be used, or NULL */
} SweepKey;

/* So many blocks are looked at, or not, together: a member of a Bitmapset */
#define SWEEP_UNIT_BLOCKS 8

/* What is left to do of a table */
typedef struct SweepTable
{
	Oid			relid;
	BlockNumber next;			/* where the next batch begins */
	BlockNumber end;			/* InvalidBlockNumber: not begun */
	bool		in_units;		/* only some units are looked at */
	Bitmapset  *units;			/* these; NULL: none */
	Bitmapset  *skipped;		/* units with rows that others had locked */
} SweepTable;

/* A set of keys, and what has been seen of their values */
typedef struct Sweep
{
	MemoryContext context;
	bool		tolerant;		/* go on without keys that cannot be used */
	bool		by_tenant;		/* re-encrypt where an index on tenants says */
	HTAB	   *keys;
	int64		seen;			/* rows */
	int64		estimated;		/* rows of all tables, as far as is known */
	int64		rows;			/* re-encrypted */
	TransactionId skipped_for;	/* who had locked the last row left out */
	int			ntrouble;		/* keys that failed, or have values that stay */
	StringInfoData columns;		/* of the last scan, elements of a JSON array */
	int64		hits;			/* of the last scan */
} Sweep;

/* Which columns a scan looks at */
typedef enum SweepScope
{
	SWEEP_REGISTERED,
	SWEEP_ALL_BYTEA
} SweepScope;

extern Sweep *sweep_create(MemoryContext context);
extern void sweep_add_key(Sweep *sweep, int64 key_id, const char *tenant);
extern SweepTable *sweep_tables(Sweep *sweep, int *ntables);
extern void sweep_name_triggers(const SweepTable *tables, int ntables);

extern bool sweep_batch(Sweep *sweep, SweepTable *table, int batch_size);
extern bool sweep_again(SweepTable *table);
extern void sweep_whole(Sweep *sweep, SweepTable *table);

extern void sweep_begin_scan(Sweep *sweep);
extern void sweep_scan(Sweep *sweep, Oid relid, SweepScope scope);
extern Oid *sweep_scan_tables(SweepScope scope, int *ntables);

extern char *sweep_table_name(Relation rel);
extern char *sweep_place(Relation rel, AttrNumber attnum, ItemPointer tid);
extern SweepKey *sweep_key_of(Sweep *sweep, TupleTableSlot *slot, AttrNumber attnum);

/* The table's owner, for work on it */
typedef struct TableScope
{
	Oid			user;
	int			sec_context;
	int			guc_level;
} TableScope;

extern void table_scope_begin(TableScope *scope, Oid owner);
extern void table_scope_end(TableScope *scope);

#endif							/* ENVELOPE_SWEEP_H */
