/*-------------------------------------------------------------------------
 *
 * search_column.h
 *	  Which column of which table an expression of a query is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SEARCH_COLUMN_H
#define ENVELOPE_SEARCH_COLUMN_H

#include "tables/substitute.h"

/* A column of a table, as a Var of some query comes down to it */
typedef struct FoundColumn
{
	Query	   *query;			/* in whose range table the table is */
	int			rti;
	AttrNumber	attno;
	const RangeTblEntry *rte;
} FoundColumn;

extern Node *search_strip_relabel(const Node *node);
extern bool search_find_column(Query *query, const Node *node, FoundColumn *found);
extern bool search_same_table(const FoundColumn *a, const FoundColumn *b);
extern Var *search_behind_var(const RangeTblEntry *rte, const Var *var, Query *query,
							  Query **of);
extern bool search_can_expose(const QueryLevel *level, const Var *var);
extern Var *search_expose(Query *query, const Var *var, AttrNumber attno);

#endif							/* ENVELOPE_SEARCH_COLUMN_H */
