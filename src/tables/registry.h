/*-------------------------------------------------------------------------
 *
 * registry.h
 *	  Where sealed values are stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_REGISTRY_H
#define ENVELOPE_REGISTRY_H

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"

/* A column of sealed values */
typedef struct SealedColumn
{
	AttrNumber	column;
	AttrNumber	tenant;
	char	   *context;		/* server encoding; NULL: an expression is */
	Node	   *expression;		/* over the row, whose varno is 1 */
	ExprState  *state;			/* of the expression, when prepared */
	bool		guarded;		/* its trigger is there and fires always */
} SealedColumn;

/* The columns of sealed values of a table that has storage */
typedef struct SealedTable
{
	Oid			relid;
	int			ncolumns;
	SealedColumn columns[FLEXIBLE_ARRAY_MEMBER];
} SealedTable;

/* Of a row c of envelope.registered_columns: somebody has taken its trigger away */
#define REGISTRATION_IS_LOST \
	"NOT EXISTS (SELECT FROM pg_trigger t" \
	" WHERE t.tgfoid = 'envelope.seal_guard'::regproc" \
	" AND split_part(encode(t.tgargs, 'escape'), E'\\\\000', 1) = c.registration::text)"

extern List *registry_tables(void);
extern SealedTable *registry_read(Relation rel);
extern void registry_check(void);
extern void registry_enable_guards(Oid relid);
extern bool sealed_value_key(Datum value, int64 *key_id);
extern const char *registry_context(SealedColumn *column, TupleTableSlot *slot,
									EState *estate, size_t *len);

extern Oid	registry_guard_function(void);
extern void registry_read_guard(Relation rel, const Trigger *trigger, SealedColumn *column);
extern char *registry_table_name(Relation rel);

extern void registry_add(Oid relid, const char *column, const char *tenant,
						 const char *context, const char *expression);
extern void registry_remove(Oid relid, const char *column);

#endif							/* ENVELOPE_REGISTRY_H */
