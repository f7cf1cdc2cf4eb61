/*-------------------------------------------------------------------------
 *
 * search.h
 *	  Comparisons of terms, added where a statement compares values.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SEARCH_H
#define ENVELOPE_SEARCH_H

#include "tables/substitute.h"

extern void search_derive(QueryLevel *level);

#endif							/* ENVELOPE_SEARCH_H */
