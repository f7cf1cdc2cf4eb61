/*-------------------------------------------------------------------------
 *
 * sweep_index.h
 *	  Indexes that spare a sweep a look at every row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SWEEP_INDEX_H
#define ENVELOPE_SWEEP_INDEX_H

#include "lifecycle/sweep.h"
#include "tables/registry.h"

/* A row that is under a key of the sweep, as far as the index tells */
typedef void (*sweep_found_fn) (Sweep *sweep, Relation rel, TupleTableSlot *slot,
								void *arg);

extern bool sweep_index_units(Sweep *sweep, Relation rel, const SealedTable *sealed,
							  Bitmapset **units);
extern Relation sweep_index_of_keys(Relation rel, AttrNumber attnum);
extern void sweep_index_look(Sweep *sweep, Relation rel, Relation index,
							 sweep_found_fn found, void *arg);

#endif							/* ENVELOPE_SWEEP_INDEX_H */
