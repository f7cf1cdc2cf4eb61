/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  The shared memory of envelope.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SHMEM_H
#define ENVELOPE_SHMEM_H

#include "storage/lwlock.h"

/* The LWLocks, in the order of the tranche */
typedef enum EnvelopeLockId
{
	ENVELOPE_LOCK_CACHE,
	ENVELOPE_LOCK_QUEUE,
	ENVELOPE_LOCK_STATS
} EnvelopeLockId;

#define ENVELOPE_LOCKS 3

extern void shmem_install_hooks(void);
extern bool shmem_is_ready(void);
extern bool shmem_is_locked(void);
extern void shmem_require(void);
extern LWLock *shmem_lock(EnvelopeLockId id);

#endif							/* ENVELOPE_SHMEM_H */
