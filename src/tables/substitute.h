/*-------------------------------------------------------------------------
 *
 * substitute.h
 *	  A query on what the application knows becomes one on what is stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SUBSTITUTE_H
#define ENVELOPE_SUBSTITUTE_H

#include "nodes/params.h"
#include "nodes/parsenodes.h"

#include "tables/protection.h"

/*
 * The location of Vars that were put in here, which no text has; so they are
 * not replaced again.
 */
#define GENERATED_LOCATION	(-4242)

/* What is the same for all levels of a statement */
typedef struct Substitution
{
	ParamListInfo params;		/* parameters of the statement, or NULL */
	bool		terms_known;	/* terms were computed: the plan depends on
								 * keys */
} Substitution;

/* A query that is being worked on, and those around it */
typedef struct QueryLevel
{
	Substitution *substitution;
	Query	   *query;
	Protection **protections;	/* by range-table index - 1; NULL where none */
	struct QueryLevel *outer;
} QueryLevel;

/* What a column of a protected table is */
typedef enum ColumnRole
{
	COLUMN_ORDINARY,
	COLUMN_CARRIER,
	COLUMN_STORED				/* a sidecar or a term */
} ColumnRole;

extern QueryLevel *query_level_of(QueryLevel *level, Index levelsup);
extern ColumnRole column_role(const Protection *protection, AttrNumber attno,
							  const ProtectedColumn **column);
extern Var *sibling_var(const Var *var, Oid relid, AttrNumber attno);

extern Protection *entry_protection(const RangeTblEntry *rte);
extern bool entry_is_protected(const RangeTblEntry *rte);
extern Query *substitute_query(Query *query, Substitution *substitution);

#endif							/* ENVELOPE_SUBSTITUTE_H */
