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
	bool		clear;			/* while live: not sealed yet */
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
	bool		forced;			/* what terms give away is accepted */
	List	   *words;			/* at the end of the trigger's arguments */
	List	   *relids;			/* itself and its partitions */
	List	   *columns;		/* of ProtectColumn */
} ProtectPlan;

/* What a partition has of an index of its partitioned table */
typedef struct MovedPart
{
	Oid			relid;			/* the partition */
	char	   *name;
	char	   *index_definition;	/* a statement */
	char	   *options;		/* as in SET (...); NULL where it has none */
	char	   *comment;		/* NULL where it has none */
	char	   *tablespace;		/* NULL for the default */
	bool		is_clustered;
	bool		has_parts;		/* it is of a partition with partitions */
} MovedPart;

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
	List	   *parts;			/* of MovedPart */
} MovedIndex;

/* An index on terms that is built while the table is in use */
typedef struct LiveIndex
{
	MovedIndex *replaces;		/* NULL: the column has no index */
	MovedPart  *part;			/* that of a partition, or NULL */
	ProtectColumn *column;		/* whose index it is where none is replaced */
	Oid			relid;			/* what it is built on: the table, or a
								 * partition */
	char	   *name;			/* until it takes the other's */
	char	   *shown;			/* what it is called in messages */
	bool		exists;
	bool		valid;
} LiveIndex;

/* protect.c */
extern ProtectPlan *protect_plan(Relation rel, LOCKMODE lock);
extern void protect_plan_call(FunctionCallInfo fcinfo, ProtectPlan *plan, Relation rel);
extern void protect_plan_resume(FunctionCallInfo fcinfo, const ProtectPlan *plan);
extern bool protect_plan_clear(ProtectPlan *plan);
extern void protect_require_preload(void);
extern void protect_allow_triggers(Oid owner);
extern char *protect_table_name(Oid relid);
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
extern bool alter_is_not_null(Oid relid, const char *column);
extern void alter_move_not_null(const ProtectPlan *plan, bool back);
extern void alter_add_checks(const ProtectPlan *plan, bool valid);
extern List *alter_suspend_not_null(const ProtectPlan *plan, const ProtectColumn *column);
extern void alter_resume_not_null(const ProtectPlan *plan, bool back);
extern void alter_drop_checks(const ProtectPlan *plan);
extern bool alter_has_constraint(const ProtectPlan *plan, const char *name);
extern void alter_drop_constraint(const ProtectPlan *plan, const char *name);
extern void alter_move_checks(const ProtectPlan *plan, bool back);
extern void alter_drop_trigger(const ProtectPlan *plan);
extern void alter_make_trigger(const ProtectPlan *plan);

/* term_index.c */
extern void term_index_check(ProtectPlan *plan);
extern List *term_index_note(const ProtectPlan *plan, Oid relid, bool back, LOCKMODE lock);
extern List *term_index_drop(const ProtectPlan *plan, bool back);
extern void term_index_make(const ProtectPlan *plan, List *moved, bool back);
extern void term_index_drop_moved(const MovedIndex *moved);
extern IndexStmt *term_index_statement(const ProtectPlan *plan, const MovedIndex *moved,
									   const MovedPart *part);
extern IndexStmt *term_index_own_statement(const ProtectPlan *plan, const ProtectColumn *column,
										   const char *name);
extern void term_index_describe(const MovedIndex *moved);
extern void term_index_describe_own(const ProtectPlan *plan, const char *name);

/* term_index_parts.c */
extern List *term_index_list_parts(Oid index, bool is_constraint);
extern MovedPart *term_index_part_of(List *parts, Oid relid);
extern void term_index_describe_parts(const MovedIndex *moved);

/* term_index_live.c */
extern void term_index_live_check(const ProtectPlan *plan);
extern List *term_index_live_list(const ProtectPlan *plan);
extern bool term_index_live_ready(const ProtectPlan *plan);
extern List *term_index_live_left(const ProtectPlan *plan);
extern void term_index_live_drop_left(const ProtectPlan *plan);
extern IndexStmt *term_index_live_statement(const ProtectPlan *plan, const LiveIndex *index);
extern void term_index_live_swap(const ProtectPlan *plan);

/* samples.c */
extern bool samples_exist(const ProtectPlan *plan);
extern List *samples_words(const ProtectPlan *plan);
extern void samples_forget(void);

/* term_leak.c */
extern void term_leak_check(const ProtectPlan *plan, const ProtectColumn *column, Oid type);
extern void term_leak_warn(const ProtectPlan *plan);

/* rewrite.c */
extern void rewrite_check(const ProtectPlan *plan);
extern void rewrite_table(const ProtectPlan *plan, bool back);

#endif							/* ENVELOPE_PROTECT_H */
