/*-------------------------------------------------------------------------
 *
 * seal.h
 *	  The trigger that seals what is written to a protected table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SEAL_H
#define ENVELOPE_SEAL_H

extern void seal_init(void);

#endif							/* ENVELOPE_SEAL_H */
