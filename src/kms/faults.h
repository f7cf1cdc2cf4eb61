/*-------------------------------------------------------------------------
 *
 * faults.h
 *	  Faults of local KEKs, ordered by envelope.local_kek_faults.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_FAULTS_H
#define ENVELOPE_FAULTS_H

#include "utils/guc.h"

typedef struct KekFault
{
	int			delay_ms;
	bool		stalled;
	bool		unreachable;
	bool		denied;
	bool		corrupt;
} KekFault;

extern bool kek_faults_check(char **newval, void **extra, GucSource source);
extern KekFault kek_fault_of(const char *kek);

#endif							/* ENVELOPE_FAULTS_H */
