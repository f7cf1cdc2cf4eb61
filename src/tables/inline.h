/*-------------------------------------------------------------------------
 *
 * inline.h
 *	  SQL functions in FROM that read protected tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_INLINE_H
#define ENVELOPE_INLINE_H

#include "nodes/params.h"
#include "nodes/pathnodes.h"

extern bool inline_and_find(Query *query, ParamListInfo params,
							PlannerGlobal **inlined);

#endif							/* ENVELOPE_INLINE_H */
