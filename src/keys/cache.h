/*-------------------------------------------------------------------------
 *
 * cache.h
 *	  The shared cache of unwrapped data keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_CACHE_H
#define ENVELOPE_CACHE_H

#include "crypto/format.h"
#include "crypto/secret.h"

/* What memory holds of a key */
typedef enum DekState
{
	DEK_FRESH,					/* the KMS answered for it */
	DEK_GRACE,					/* the KMS could not be reached since */
	DEK_SUSPECT					/* the KMS denied it once: opens, seals not */
} DekState;

/* A key's time is shortened by at most this part, so that refreshes spread */
#define TTL_JITTER			0.1

/* Names a key in a server: key ids are unique in a database only */
typedef struct DekId
{
	Oid			database;
	int64		key_id;
} DekId;

/*
 * What a backend is told of a key it may use: until when, and by which
 * generation to notice that it was evicted meanwhile.
 */
typedef struct DekLease
{
	int64		expires_at;		/* boottime_ms() */
	uint64		generation;		/* of the tenant, read before the lookup */
	bool		may_seal;
	bool		refresh_due;	/* this caller is to ask for a refresh */
} DekLease;

/* One key in memory, for the view envelope.cache */
typedef struct DekCacheRow
{
	DekId		id;
	KeyPurpose	purpose;
	DekState	state;
	bool		due;
	int64		age_ms;
	int64		expires_in_ms;
	uint64		hits;
	char		tenant[TENANT_MAX_BYTES + 1];	/* UTF-8 */
} DekCacheRow;

typedef struct DekCacheCounters
{
	uint64		hits;
	uint64		misses;
	uint64		evictions;		/* to make room */
	uint64		evictions_unexpired;	/* of these, of keys still good */
	int			used;
	int			size;
} DekCacheCounters;

/* What the worker learnt when it asked the KMS about a key in memory */
typedef enum DekVerdict
{
	DEK_UNREACHABLE,			/* lives on until TTL and grace are over */
	DEK_DENIED_ONCE,			/* suspect until a second answer */
	DEK_DENIED,					/* wiped everywhere */
	DEK_UNCHANGED				/* lives until its time is over */
} DekVerdict;

extern Size dek_cache_shmem_size(void);
extern void dek_cache_shmem_init(void *area);

extern uint64 dek_cache_epoch(void);
extern uint64 dek_cache_generation(Oid database, const char *tenant);

extern bool dek_cache_lookup(const DekId *id, const char *tenant,
							 DekSubkeys *subkeys, DekLease *lease);
extern void dek_cache_count_miss(void);

extern bool dek_cache_store(const DekId *id, const char *tenant,
							KeyPurpose purpose, const DekSubkeys *subkeys,
							uint64 generation);
extern bool dek_cache_judge(const DekId *id, const char *tenant,
							DekVerdict verdict);

extern int	dek_cache_evict_tenant(Oid database, const char *tenant);
extern int	dek_cache_evict_database(Oid database);
extern int	dek_cache_evict_all(void);

extern void dek_cache_tick(void);
extern bool dek_cache_needs_tick(void);
extern DekCacheRow *dek_cache_rows(Oid database, int *nrows);
extern void dek_cache_counters(DekCacheCounters *counters);

#endif							/* ENVELOPE_CACHE_H */
