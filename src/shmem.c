/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  A mapping of our own for what may hold key bytes.
 *
 * PostgreSQL's main shared memory segment ends up in core files and, where it
 * is made of huge pages, cannot be told otherwise page by page.  So the cache
 * of unwrapped keys and the slots of the request queue live in an anonymous
 * shared mapping that the postmaster makes beside it: left out of core files,
 * locked into memory as far as the system allows, and wiped whenever shared
 * memory is made anew, after a crash included.  Every process that the
 * postmaster forks inherits it at the same address.
 *
 * The LWLocks that guard it, and the statistics, are in the main segment, where
 * PostgreSQL's tools look for them; they hold no secret.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "crypto/secret.h"
#include "errors.h"
#include "keys/cache.h"
#include "kms/queue.h"
#include "kms/stats.h"
#include "shmem.h"

#define TRANCHE_NAME "envelope"

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static char *mapping = NULL;
static Size mapping_size = 0;
static bool mapping_locked = false;
static LWLockPadded *locks = NULL;

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestNamedLWLockTranche(TRANCHE_NAME, ENVELOPE_LOCKS);
	RequestAddinShmemSpace(kms_stats_shmem_size());
}

/*
 * Make the mapping.  It lives as long as the postmaster, so this happens once
 * whatever crashes.
 */
static void
create_mapping(Size size)
{
	mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mapping == MAP_FAILED)
	{
		mapping = NULL;
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map %zu bytes of memory for data keys: %m",
						size)));
	}
	mapping_size = size;

	if (madvise(mapping, size, MADV_DONTDUMP) != 0)
		ereport(FATAL,
				(errmsg("could not keep data keys out of core files: %m")));

	mapping_locked = mlock(mapping, size) == 0;
	if (!mapping_locked)
		ereport(LOG,
				(errmsg("could not lock %zu bytes of data keys into memory: %m",
						size),
				 errhint("Raise the limit on locked memory, or encrypt the swap space.")));
}

static void
startup_shmem(void)
{
	Size		cache_size = MAXALIGN(dek_cache_shmem_size());
	Size		queue_size = MAXALIGN(kms_queue_shmem_size());
	Size		size;
	void	   *stats;
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	size = add_size(cache_size, queue_size);
	if (mapping == NULL)
		create_mapping(size);
	Assert(mapping_size == size);

	locks = GetNamedLWLockTranche(TRANCHE_NAME);
	secret_wipe(mapping, mapping_size);
	dek_cache_shmem_init(mapping);
	kms_queue_shmem_init(mapping + cache_size);

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	stats = ShmemInitStruct("envelope KMS statistics", kms_stats_shmem_size(), &found);
	if (!found)
		memset(stats, 0, kms_stats_shmem_size());
	LWLockRelease(AddinShmemInitLock);
	kms_stats_shmem_init(stats);
}

/* Called from _PG_init while the postmaster preloads the library. */
void
shmem_install_hooks(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

/* Is there a cache and a queue, that is, was the library preloaded? */
bool
shmem_is_ready(void)
{
	return locks != NULL;
}

/* Is the mapping locked into memory, so that no key can be swapped out? */
bool
shmem_is_locked(void)
{
	return mapping_locked;
}

/*
 * Refuse (VE008) what cannot be done in a server that did not preload the
 * library.
 */
void
shmem_require(void)
{
	if (!shmem_is_ready())
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_NOT_RUNNING),
				 errmsg("envelope is not running in this server"),
				 errhint("Add \"envelope\" to shared_preload_libraries and restart the server.")));
}

LWLock *
shmem_lock(EnvelopeLockId id)
{
	return &locks[id].lock;
}
