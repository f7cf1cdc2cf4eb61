/*-------------------------------------------------------------------------
 *
 * protection.h
 *	  Which tables are protected, and how.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROTECTION_H
#define ENVELOPE_PROTECTION_H

#include "access/attnum.h"
#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"

/* The trigger that seals; its name sorts after those of the application */
#define SEAL_TRIGGER		"zzz_envelope_seal"

/* The functions of the two triggers, in the schema "envelope" */
#define SEAL_FUNCTION		"seal"
#define SEAL_GUARD_FUNCTION	"seal_guard"

/* Of the extension's own schema: the key id of a sealed value */
#define KEY_ID_FUNCTION		"envelope_key_id"

/* What the names of sidecars end in */
#define SIDECAR_SUFFIX		"__sealed"
#define TERM_SUFFIX			"__term"

/* How many bytes a term has */
#define TERM_BYTES			16

/*
 * The trigger's arguments: the tenant column, then for each column these, then
 * words such as SEAL_ARG_LIVE.
 */
#define SEAL_ARGS_PER_COLUMN	4	/* carrier, sidecar, term or '', context */
#define SEAL_ARG_END			""	/* stands where a carrier would */
#define SEAL_ARG_LIVE			"live"	/* carriers may still hold values */
#define SEAL_ARG_CLEAR			"clear" /* meanwhile: carrier; not yet sealed */
#define SEAL_ARG_NOT_NULL		"not_null"	/* meanwhile: carrier */
#define SEAL_ARG_FILE			"file"	/* it was switched live in this file */
#define SEAL_ARG_STATISTICS		"statistics"	/* samples of it were in this
												 * file: server, database,
												 * file of a catalog */

/* A protected column */
typedef struct ProtectedColumn
{
	AttrNumber	carrier;
	AttrNumber	sidecar;
	AttrNumber	term;			/* 0 where it is not searchable */
	bool		not_null;		/* the carrier was NOT NULL: the sidecar is */
	bool		clear;			/* while live: values go to the carrier still,
								 * and only the term is kept beside it */
	Oid			type;			/* of the carrier */
	int32		typmod;
	Oid			collation;
	char	   *context;		/* in the server's encoding; never changes */
} ProtectedColumn;

/* A protected table, or partition of one */
typedef struct Protection
{
	Oid			relid;
	AttrNumber	tenant;
	Oid			tenant_type;	/* text, varchar, uuid or an integer */
	bool		live;			/* carriers may still hold values */
	bool		old_file;		/* the file may hold plaintext of dead rows */
	TransactionId switched;		/* on a standby: see protection_is_ahead */
	List	   *words;			/* of the trigger's arguments; protection_read
								 * only */
	int			ncolumns;
	ProtectedColumn columns[FLEXIBLE_ARRAY_MEMBER];
} Protection;

extern void protection_init(void);
extern uint64 protection_sequence(void);
extern Protection *protection_of(Oid relid);
extern bool protection_exists(Oid relid);
extern Protection *protection_read(Relation rel);
extern Protection *protection_try_read(Relation rel, const char **misfit);
extern const Trigger *protection_trigger(Relation rel);
extern bool protection_is_ahead(const Protection *protection);
extern bool protection_reads_carriers(const Protection *protection);
extern List *protected_relations(void);
extern Relation owned_relation_open(Oid relid, LOCKMODE lockmode);
extern Oid	protection_function(const char *name);
extern Oid	protection_seal_function(void);

#endif							/* ENVELOPE_PROTECTION_H */
