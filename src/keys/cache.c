/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  The shared cache of unwrapped data keys.
 *
 * A bounded table in the mapping of shmem.c, keyed by database and key id.
 * The worker stores keys and wipes expired ones, backends copy keys out and
 * evict.  What is stored are the subkeys of a data key, so that a backend
 * that takes one has no derivation to do.
 *
 * A key is good until expires_at.  Once it is past 80 percent of its time the
 * next backend to use it is told to ask for a refresh, once; use alone never
 * makes a key live longer.  What the answer to a refresh does is in
 * dek_cache_judge.
 *
 * The cache is not transactional and the tables are.  Whoever evicts keys
 * first advances the generation of the tenant (one of GENERATIONS counters,
 * by hash), then wipes.  A backend that misses reads the generation before it
 * looks at the tables, and the worker stores the key only if the generation is
 * still the same; so a key that was asked for before an eviction never comes
 * back after it.  Backends notice by the generation that a key which they
 * hold expanded was evicted.  They look whenever the epoch has moved, which
 * every eviction does, and the worker each second.
 *
 * Locking
 *
 * The LWLock ENVELOPE_LOCK_CACHE guards the table: shared to look up,
 * exclusive to store, judge and evict.  Nothing is done under it but moving
 * bytes.  What changes with a lookup (last_used, hits, refresh_at) is atomic,
 * and so are epoch and generations, which are read without the lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"

#include "compat.h"
#include "keys/cache.h"
#include "settings.h"
#include "shmem.h"

#define GENERATIONS			1024	/* a power of two */

/* Refresh once past this part of a key's time */
#define REFRESH_AT			0.8
/* A refresh that is not answered by then is asked for again */
#define REFRESH_PATIENCE_MS	35000
/* How long after an unreachable KMS the next refresh is tried */
#define REFRESH_RETRY_MS	2000
/* A suspect key dies after this */
#define SUSPECT_MS			5000
/* last_used is written when it is older than this */
#define USED_GRANULARITY_MS	1000

#define NO_ENTRY			(-1)

/*
 * What a lookup touches comes first and fills two cache lines: among ten
 * thousand keys in random order it is the misses that cost.
 */
typedef struct DekEntry
{
	/* All guarded by the lock, but where it says atomic */
	DekId		id;
	int			next;			/* in the bucket, or in the free list */
	uint8		purpose;		/* KeyPurpose */
	uint8		state;			/* DekState */
	bool		used;
	uint64		tenant_hash;
	int64		expires_at;
	pg_atomic_uint64 refresh_at;	/* atomic */
	pg_atomic_uint64 hits;		/* atomic */
	DekSubkeys	subkeys;		/* those of purpose data first */

	int64		loaded_at;
	int64		ttl_ends_at;	/* what expires_at was at first */
	char		tenant[TENANT_MAX_BYTES + 1];
} DekEntry;

typedef struct DekCache
{
	pg_atomic_uint64 epoch;
	pg_atomic_uint64 generations[GENERATIONS];
	pg_atomic_uint64 tick_until;	/* no key is in use after this */
	pg_atomic_uint64 ticked_at; /* when dek_cache_tick was called last */
	pg_atomic_uint64 hits;
	pg_atomic_uint64 misses;

	/* Set at start */
	int			size;
	uint32		bucket_mask;
	int		   *buckets;
	pg_atomic_uint64 *last_used;	/* of each entry; dense, for the LRU scan */
	DekEntry   *entries;

	/* Guarded by the lock */
	int			nused;
	int			free;
	uint64		evictions;
	uint64		evictions_unexpired;
} DekCache;

static DekCache *cache = NULL;

static LWLock *
cache_lock(void)
{
	return shmem_lock(ENVELOPE_LOCK_CACHE);
}

static uint32
bucket_count(void)
{
	return pg_nextpower2_32(Max(2 * envelope_cache_size, 16));
}

Size
dek_cache_shmem_size(void)
{
	Size		size = MAXALIGN(sizeof(DekCache));

	size = add_size(size, MAXALIGN(mul_size(bucket_count(), sizeof(int))));
	size = add_size(size, MAXALIGN(mul_size(envelope_cache_size,
											sizeof(pg_atomic_uint64))));
	size = add_size(size, mul_size(envelope_cache_size, sizeof(DekEntry)));
	return add_size(size, PG_CACHE_LINE_SIZE);
}

/*
 * Lay the cache out in area, which is zero.
 */
void
dek_cache_shmem_init(void *area)
{
	char	   *at = area;

	cache = area;
	at += MAXALIGN(sizeof(DekCache));
	cache->buckets = (int *) at;
	at += MAXALIGN(bucket_count() * sizeof(int));
	cache->last_used = (pg_atomic_uint64 *) at;
	at += MAXALIGN(envelope_cache_size * sizeof(pg_atomic_uint64));
	cache->entries = (DekEntry *) CACHELINEALIGN(at);

	cache->size = envelope_cache_size;
	cache->bucket_mask = bucket_count() - 1;
	pg_atomic_init_u64(&cache->epoch, 1);
	for (int i = 0; i < GENERATIONS; i++)
		pg_atomic_init_u64(&cache->generations[i], 1);
	pg_atomic_init_u64(&cache->tick_until, 0);
	pg_atomic_init_u64(&cache->ticked_at, 0);
	pg_atomic_init_u64(&cache->hits, 0);
	pg_atomic_init_u64(&cache->misses, 0);

	for (int i = 0; i <= cache->bucket_mask; i++)
		cache->buckets[i] = NO_ENTRY;
	for (int i = 0; i < cache->size; i++)
	{
		pg_atomic_init_u64(&cache->last_used[i], 0);
		pg_atomic_init_u64(&cache->entries[i].refresh_at, 0);
		pg_atomic_init_u64(&cache->entries[i].hits, 0);
		cache->entries[i].next = i + 1 < cache->size ? i + 1 : NO_ENTRY;
	}
	cache->free = 0;
}

/*
 * The word that moves whenever somebody may have to give up a key: with every
 * eviction, and each second while keys are in use.
 */
uint64
dek_cache_epoch(void)
{
	return pg_atomic_read_u64(&cache->epoch);
}

static void
advance_epoch(void)
{
	pg_atomic_fetch_add_u64(&cache->epoch, 1);
}

static uint64
hash_tenant(Oid database, const char *tenant)
{
	return hash_bytes_extended((const unsigned char *) tenant, strlen(tenant),
							   database);
}

static pg_atomic_uint64 *
generation_of(Oid database, const char *tenant)
{
	return &cache->generations[hash_tenant(database, tenant) % GENERATIONS];
}

/*
 * The generation of a tenant.  tenant is UTF-8.
 */
uint64
dek_cache_generation(Oid database, const char *tenant)
{
	return pg_atomic_read_u64(generation_of(database, tenant));
}

static int *
bucket_of(const DekId *id)
{
	uint32		hash = (uint32) hash_bytes_uint32_extended((uint32) id->key_id,
														   (uint64) id->key_id ^ id->database);

	return &cache->buckets[hash & cache->bucket_mask];
}

/* Find the entry of a key; the lock is held. */
static int
find_entry(const DekId *id)
{
	for (int i = *bucket_of(id); i != NO_ENTRY; i = cache->entries[i].next)
	{
		if (cache->entries[i].id.key_id == id->key_id &&
			cache->entries[i].id.database == id->database)
			return i;
	}
	return NO_ENTRY;
}

/* Wipe an entry and put it back; the lock is held exclusively. */
static void
remove_entry(int index)
{
	DekEntry   *entry = &cache->entries[index];
	int		   *link = bucket_of(&entry->id);

	while (*link != index)
		link = &cache->entries[*link].next;
	*link = entry->next;

	secret_wipe(&entry->subkeys, sizeof(entry->subkeys));
	entry->used = false;
	entry->next = cache->free;
	cache->free = index;
	cache->nused--;
}

/*
 * Take an entry for a new key, the one least recently used if none is free;
 * the lock is held exclusively.
 */
static int
take_entry(const DekId *id, int64 now)
{
	int			index;
	int		   *bucket;

	if (cache->free == NO_ENTRY)
	{
		int			oldest = 0;
		uint64		oldest_used = PG_UINT64_MAX;

		for (int i = 0; i < cache->size; i++)
		{
			uint64		last_used = pg_atomic_read_u64(&cache->last_used[i]);

			if (last_used < oldest_used)
			{
				oldest = i;
				oldest_used = last_used;
			}
		}
		cache->evictions++;
		if (now < cache->entries[oldest].expires_at)
			cache->evictions_unexpired++;
		remove_entry(oldest);
	}

	index = cache->free;
	cache->free = cache->entries[index].next;
	cache->nused++;

	bucket = bucket_of(id);
	cache->entries[index].id = *id;
	cache->entries[index].used = true;
	cache->entries[index].next = *bucket;
	*bucket = index;
	pg_atomic_write_u64(&cache->entries[index].hits, 0);
	pg_atomic_write_u64(&cache->last_used[index], now);
	return index;
}

/*
 * Write down a use of an entry, and find out whether this user is the one to
 * ask for its refresh.
 */
static bool
note_use(int index, int64 now)
{
	DekEntry   *entry = &cache->entries[index];
	uint64		refresh_at = pg_atomic_read_u64(&entry->refresh_at);

	pg_atomic_fetch_add_u64(&cache->hits, 1);
	pg_atomic_fetch_add_u64(&entry->hits, 1);
	if (now - (int64) pg_atomic_read_u64(&cache->last_used[index]) >= USED_GRANULARITY_MS)
		pg_atomic_write_u64(&cache->last_used[index], now);

	return now >= (int64) refresh_at &&
		pg_atomic_compare_exchange_u64(&entry->refresh_at, &refresh_at,
									   now + REFRESH_PATIENCE_MS);
}

/*
 * Look a key up for a tenant (UTF-8), and note that it is used.
 *
 * True where it is in memory, is the tenant's, and has not expired: *lease is
 * then filled, and *subkeys too unless it is NULL; the caller wipes them.  If
 * lease->refresh_due the caller is the one who has to ask for a refresh.
 *
 * That the key is the tenant's the caller knows from the tables; the hash that
 * is compared here only keeps a row apart that was put in another's place.
 */
bool
dek_cache_lookup(const DekId *id, const char *tenant, DekSubkeys *subkeys,
				 DekLease *lease)
{
	int64		now = boottime_ms();
	uint64		hash = hash_tenant(id->database, tenant);
	int			index;
	bool		found = false;

	/* Before the lookup, so that an eviction after it is noticed. */
	lease->generation = pg_atomic_read_u64(&cache->generations[hash % GENERATIONS]);

	LWLockAcquire(cache_lock(), LW_SHARED);
	index = find_entry(id);
	if (index != NO_ENTRY)
	{
		DekEntry   *entry = &cache->entries[index];

		if (now < entry->expires_at && entry->tenant_hash == hash)
		{
			found = true;
			lease->expires_at = entry->expires_at;
			lease->may_seal = entry->state != DEK_SUSPECT;
			lease->refresh_due = note_use(index, now);
			if (subkeys)
				*subkeys = entry->subkeys;
		}
	}
	LWLockRelease(cache_lock());
	return found;
}

/* Count a key that had to be asked for. */
void
dek_cache_count_miss(void)
{
	pg_atomic_fetch_add_u64(&cache->misses, 1);
}

/* Keys may be in use until this moment: the worker has to tick until then. */
static void
tick_until(int64 moment)
{
	/* Only the worker writes it. */
	if (moment > (int64) pg_atomic_read_u64(&cache->tick_until))
		pg_atomic_write_u64(&cache->tick_until, moment);
}

/*
 * Store a key that the KMS has just unwrapped, in place of what was known of
 * it.  False where the tenant's generation has moved on since the key was
 * asked for: then nothing is stored.  Called by the worker only.
 */
bool
dek_cache_store(const DekId *id, const char *tenant, KeyPurpose purpose,
				const DekSubkeys *subkeys, uint64 generation)
{
	double		ttl = envelope_cache_ttl * 1000.0 *
		(1.0 - TTL_JITTER * pg_prng_double(&pg_global_prng_state));
	int64		now = boottime_ms();
	bool		current;

	LWLockAcquire(cache_lock(), LW_EXCLUSIVE);
	current = dek_cache_generation(id->database, tenant) == generation;
	if (current)
	{
		int			index = find_entry(id);
		DekEntry   *entry;

		if (index == NO_ENTRY)
			index = take_entry(id, now);
		entry = &cache->entries[index];
		entry->purpose = purpose;
		entry->state = DEK_FRESH;
		entry->loaded_at = now;
		entry->ttl_ends_at = entry->expires_at = now + (int64) ttl;
		pg_atomic_write_u64(&entry->refresh_at, now + (int64) (ttl * REFRESH_AT));
		entry->subkeys = *subkeys;
		entry->tenant_hash = hash_tenant(id->database, tenant);
		strlcpy(entry->tenant, tenant, sizeof(entry->tenant));
		tick_until(entry->expires_at);
	}
	LWLockRelease(cache_lock());
	return current;
}

/*
 * Act on what the KMS answered about a key that may be in memory.  True where
 * it is.  Called by the worker only.
 */
bool
dek_cache_judge(const DekId *id, const char *tenant, DekVerdict verdict)
{
	int64		now = boottime_ms();
	int			index;
	bool		found;

	if (verdict == DEK_DENIED)
		pg_atomic_fetch_add_u64(generation_of(id->database, tenant), 1);

	LWLockAcquire(cache_lock(), LW_EXCLUSIVE);
	index = find_entry(id);
	found = index != NO_ENTRY && now < cache->entries[index].expires_at;
	if (found)
	{
		DekEntry   *entry = &cache->entries[index];

		switch (verdict)
		{
			case DEK_UNREACHABLE:
				entry->state = DEK_GRACE;
				entry->expires_at = entry->ttl_ends_at +
					(int64) envelope_outage_grace * 1000;
				pg_atomic_write_u64(&entry->refresh_at, now + REFRESH_RETRY_MS);
				tick_until(entry->expires_at);
				break;
			case DEK_DENIED_ONCE:
				entry->state = DEK_SUSPECT;
				entry->expires_at = Min(entry->expires_at, now + SUSPECT_MS);
				pg_atomic_write_u64(&entry->refresh_at, PG_INT64_MAX);
				break;
			case DEK_DENIED:
				remove_entry(index);
				break;
			case DEK_UNCHANGED:
				entry->state = DEK_FRESH;
				entry->expires_at = entry->ttl_ends_at;
				pg_atomic_write_u64(&entry->refresh_at, PG_INT64_MAX);
				break;
		}
	}
	LWLockRelease(cache_lock());

	if (verdict == DEK_DENIED || verdict == DEK_DENIED_ONCE)
		advance_epoch();
	return found;
}

/*
 * Wipe all keys of a database, or of a tenant of it, or (InvalidOid) of every
 * database.  The generations have been advanced.  Returns how many keys were
 * wiped.
 */
static int
wipe_entries(Oid database, const char *tenant)
{
	int			wiped = 0;

	LWLockAcquire(cache_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < cache->size; i++)
	{
		DekEntry   *entry = &cache->entries[i];

		if (!entry->used)
			continue;
		if (OidIsValid(database) && entry->id.database != database)
			continue;
		if (tenant && strcmp(entry->tenant, tenant) != 0)
			continue;
		remove_entry(i);
		wiped++;
	}
	LWLockRelease(cache_lock());

	advance_epoch();
	return wiped;
}

static void
advance_all_generations(void)
{
	for (int i = 0; i < GENERATIONS; i++)
		pg_atomic_fetch_add_u64(&cache->generations[i], 1);
}

/*
 * Evict the keys of a tenant (UTF-8): wiped at once here, and by every backend
 * that holds one expanded as soon as it looks at the epoch.
 */
int
dek_cache_evict_tenant(Oid database, const char *tenant)
{
	pg_atomic_fetch_add_u64(generation_of(database, tenant), 1);
	return wipe_entries(database, tenant);
}

/* The same for all keys of a database */
int
dek_cache_evict_database(Oid database)
{
	advance_all_generations();
	return wipe_entries(database, NULL);
}

/* The same for all keys of the server */
int
dek_cache_evict_all(void)
{
	advance_all_generations();
	return wipe_entries(InvalidOid, NULL);
}

/*
 * Is there still a key in use, so that dek_cache_tick has to be called each
 * second?  There is until a tick came after the last one's end, however late:
 * the machine may have been suspended, or busy with other things.
 */
bool
dek_cache_needs_tick(void)
{
	return pg_atomic_read_u64(&cache->ticked_at) <= pg_atomic_read_u64(&cache->tick_until);
}

/*
 * What the worker does each second: wipe expired keys, and make every backend
 * look at what it holds.
 */
void
dek_cache_tick(void)
{
	int64		now = boottime_ms();
	bool		expired = false;

	LWLockAcquire(cache_lock(), LW_SHARED);
	for (int i = 0; i < cache->size && !expired; i++)
		expired = cache->entries[i].used && now >= cache->entries[i].expires_at;
	LWLockRelease(cache_lock());

	if (expired)
	{
		LWLockAcquire(cache_lock(), LW_EXCLUSIVE);
		for (int i = 0; i < cache->size; i++)
		{
			if (cache->entries[i].used && now >= cache->entries[i].expires_at)
				remove_entry(i);
		}
		LWLockRelease(cache_lock());
	}
	pg_atomic_write_u64(&cache->ticked_at, now);
	advance_epoch();
}

/*
 * The keys that are in memory now, of one database or (InvalidOid) of all, in
 * the current memory context.
 */
DekCacheRow *
dek_cache_rows(Oid database, int *nrows)
{
	int64		now = boottime_ms();
	DekCacheRow *rows = palloc_extended(mul_size(cache->size, sizeof(DekCacheRow)),
										MCXT_ALLOC_HUGE);

	*nrows = 0;
	LWLockAcquire(cache_lock(), LW_SHARED);
	for (int i = 0; i < cache->size; i++)
	{
		DekEntry   *entry = &cache->entries[i];
		DekCacheRow *row = &rows[*nrows];

		if (!entry->used || now >= entry->expires_at)
			continue;
		if (OidIsValid(database) && entry->id.database != database)
			continue;
		row->id = entry->id;
		row->purpose = entry->purpose;
		row->state = entry->state;
		row->due = now >= entry->loaded_at +
			(int64) ((entry->ttl_ends_at - entry->loaded_at) * REFRESH_AT);
		row->age_ms = now - entry->loaded_at;
		row->expires_in_ms = entry->expires_at - now;
		row->hits = pg_atomic_read_u64(&entry->hits);
		memcpy(row->tenant, entry->tenant, sizeof(row->tenant));
		(*nrows)++;
	}
	LWLockRelease(cache_lock());
	return rows;
}

void
dek_cache_counters(DekCacheCounters *counters)
{
	counters->hits = pg_atomic_read_u64(&cache->hits);
	counters->misses = pg_atomic_read_u64(&cache->misses);
	counters->size = cache->size;

	LWLockAcquire(cache_lock(), LW_SHARED);
	counters->evictions = cache->evictions;
	counters->evictions_unexpired = cache->evictions_unexpired;
	counters->used = cache->nused;
	LWLockRelease(cache_lock());
}
