/*-------------------------------------------------------------------------
 *
 * call.h
 *	  The calls that the worker has under way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_CALL_H
#define ENVELOPE_CALL_H

extern void calls_start(int max_calls);
extern bool calls_advance(void);
extern int64 calls_next_due(void);

#endif							/* ENVELOPE_CALL_H */
