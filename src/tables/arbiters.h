/*-------------------------------------------------------------------------
 *
 * arbiters.h
 *	  ON CONFLICT while a unique index moves from protected columns to terms.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ARBITERS_H
#define ENVELOPE_ARBITERS_H

#include "nodes/plannodes.h"

extern void arbiters_complete(PlannedStmt *stmt);

#endif							/* ENVELOPE_ARBITERS_H */
