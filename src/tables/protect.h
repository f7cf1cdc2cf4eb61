/*-------------------------------------------------------------------------
 *
 * protect.h
 *	  Making a table's columns protected, and ordinary again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROTECT_H
#define ENVELOPE_PROTECT_H

#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/rel.h"

#include "keys/store.h"

/* What the name of the constraint ends in that keeps a carrier NULL */
#define PLAIN_CHECK_SUFFIX	"__plain"

/* And of one that proves a sidecar to be NOT NULL while a table is switched live */
#define NOT_NULL_SUFFIX		"__not_null"

/* A column that is protected, or is to be */
typedef struct ProtectColumn
{
	char	   *carrier;
	char	   *sidecar;
	char	   *term;			/* NULL where it is not searchable */
	char	   *context;
	AttrNumber	attnum;			/* of the carrier, in the table itself */
	bool		is_new;			/* it is being protected, or unprotected */
	bool		not_null;
} ProtectColumn;

/* A table that is protected, or is to be */
typedef struct ProtectPlan
{
	Oid			relid;
	Oid			owner;
	char	   *name;			/* as in messages */
	char	   *table;			/* quoted and qualified */
	char	   *tenant;
	bool		is_protected;	/* it has the trigger */
	bool		live;			/* carriers may still hold values */
	List	   *words;			/* at the end of the trigger's arguments */
	List	   *relids;			/* itself and its partitions */
	List	   *columns;		/* of ProtectColumn */
} ProtectPlan;

/* An index that is to be made again with other columns */
typedef struct MovedIndex
{
	char	   *definition;		/* a statement */
	char	   *index_definition;	/* the same, or that of a constraint's
									 * index */
	char	   *name;
	char	   *schema;
	Oid			relid;			/* its table */
	bool		is_constraint;
	bool		is_clustered;
	char	   *comment;		/* NULL where it has none */
	char	   *tablespace;		/* NULL for the default */
	List	   *part_relids;	/* partitions, and */
	List	   *part_names;		/* what its parts there are called */
} MovedIndex;

/* protect.c */
extern ProtectPlan *protect_plan(Relation rel, LOCKMODE lock);
extern void protect_plan_call(FunctionCallInfo fcinfo, ProtectPlan *plan, Relation rel);
extern void protect_require_preload(void);
extern void protect_allow_triggers(Oid owner);
extern char *protect_column_name(const char *carrier, const char *suffix);
extern void protect_begin(const ProtectPlan *plan, OwnerScope *scope);
extern void protect_end(OwnerScope *scope);
extern void protect_execute(char *statement);
extern char *protect_query(char *query);
extern void protect_run_utility(Node *statement);

/* refuse.c */
extern void refuse_table(Relation rel, const ProtectPlan *plan);
extern void refuse_columns(const ProtectPlan *plan);

/* alter.c */
extern void alter_add_columns(const ProtectPlan *plan);
extern void alter_drop_columns(const ProtectPlan *plan);
extern void alter_move_not_null(const ProtectPlan *plan, bool back);
extern void alter_add_checks(const ProtectPlan *plan, bool valid);
extern List *alter_drop_not_null(const ProtectPlan *plan, const ProtectColumn *column);
extern void alter_set_not_null(const ProtectPlan *plan, bool back);
extern void alter_drop_checks(const ProtectPlan *plan);
extern void alter_drop_constraint(const ProtectPlan *plan, const char *name);
extern void alter_move_checks(const ProtectPlan *plan, bool back);
extern void alter_drop_trigger(const ProtectPlan *plan);
extern void alter_make_trigger(const ProtectPlan *plan);

/* term_index.c */
extern void term_index_check(ProtectPlan *plan);
extern List *term_index_drop(const ProtectPlan *plan, bool back);
extern void term_index_make(const ProtectPlan *plan, List *moved, bool back);

/* rewrite.c */
extern void rewrite_check(const ProtectPlan *plan);
extern void rewrite_table(const ProtectPlan *plan, bool back);

#endif							/* ENVELOPE_PROTECT_H */
