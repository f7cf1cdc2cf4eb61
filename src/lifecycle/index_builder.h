/*-------------------------------------------------------------------------
 *
 * index_builder.h
 *	  A process that builds indexes on terms of a table that is in use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_INDEX_BUILDER_H
#define ENVELOPE_INDEX_BUILDER_H

#include "postgres.h"

extern bool index_builder_run(Oid relid, bool may_retry);
extern PGDLLEXPORT void envelope_index_builder_main(Datum arg);

#endif							/* ENVELOPE_INDEX_BUILDER_H */
