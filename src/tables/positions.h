/*-------------------------------------------------------------------------
 *
 * positions.h
 *	  Columns that a statement knows by their position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_POSITIONS_H
#define ENVELOPE_POSITIONS_H

#include "nodes/parsenodes.h"
#include "parser/parse_node.h"

extern void positions_check_list(ParseState *pstate, const Query *outermost,
								 const Query *query, List *hidden);
extern void positions_check_inserts(ParseState *pstate, const Query *outermost,
									const Query *query);

#endif							/* ENVELOPE_POSITIONS_H */
