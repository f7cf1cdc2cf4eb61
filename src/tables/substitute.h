/*-------------------------------------------------------------------------
 *
 * substitute.h
 *	  A query on what the application knows becomes one on what is stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SUBSTITUTE_H
#define ENVELOPE_SUBSTITUTE_H

#include "nodes/parsenodes.h"

#include "tables/protection.h"

/*
 * The location of Vars that were put in here, which no text has; so they are
 * not replaced again.
 */
#define GENERATED_LOCATION	(-4242)

/* A query that is being worked on, and those around it */
typedef struct QueryLevel
{
	Query	   *query;
	Protection **protections;	/* by range-table index - 1; NULL where none */
	struct QueryLevel *outer;
}			QueryLevel;

/* What a column of a protected table is */
typedef enum ColumnRole
{
	COLUMN_ORDINARY,
	COLUMN_CARRIER,
	COLUMN_STORED				/* a sidecar or a term */
}			ColumnRole;

extern void query_level_init(QueryLevel * level, Query *query, QueryLevel * outer);
extern QueryLevel * query_level_of(QueryLevel * level, Index levelsup);
extern ColumnRole column_role(const Protection *protection, AttrNumber attno,
							  const ProtectedColumn **column);
extern Var *sibling_var(const Var *var, Oid relid, AttrNumber attno);

extern Protection *entry_protection(const RangeTblEntry *rte);
extern Query *substitute_query(Query *query);

#endif							/* ENVELOPE_SUBSTITUTE_H */
