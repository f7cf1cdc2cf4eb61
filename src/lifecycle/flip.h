/*-------------------------------------------------------------------------
 *
 * flip.h
 *	  Making a new data key the one that seals.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_FLIP_H
#define ENVELOPE_FLIP_H

#include "kms/kms.h"

/* A tenant that is given a new key */
typedef struct Flip
{
	char	   *tenant;			/* server encoding */
	char	   *kek;			/* which wraps the new key */
	int64		key_id;			/* of the new key; NO_KEY where it failed */
	char	   *why;			/* it failed */
} Flip;

extern void flip_keys(Flip *flips, int nflips, bool throw);

#endif							/* ENVELOPE_FLIP_H */
