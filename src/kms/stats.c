/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Counters of KMS calls per KEK and operation, since the server started.
 *
 * The STATS_KEKS KEKs used last have a place each.  Latencies are counted in
 * buckets, each reaching a half power of two further than the one before, so
 * that a quantile is known to within 42 percent.
 *
 * Locking: ENVELOPE_LOCK_STATS, exclusive to count, shared to read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "kms/stats.h"
#include "shmem.h"

#define STATS_KEKS			1024

/* What the first bucket reaches to */
#define FIRST_BUCKET_MS		0.05

typedef struct KmsStats
{
	uint64		clock;
	KekStats	keks[STATS_KEKS];
} KmsStats;

static KmsStats *stats = NULL;

Size
kms_stats_shmem_size(void)
{
	return sizeof(KmsStats);
}

void
kms_stats_shmem_init(void *area)
{
	stats = area;
}

/*
 * Find the place of a KEK, or make one; the lock is held exclusively.
 */
static KekStats *
stats_of(Oid database, const char *kek)
{
	KekStats   *oldest = &stats->keks[0];
	KekStats   *found = NULL;

	for (int i = 0; i < STATS_KEKS && found == NULL; i++)
	{
		KekStats   *place = &stats->keks[i];

		if (place->database == database && strcmp(place->kek, kek) == 0)
			found = place;
		else if (place->last_used < oldest->last_used)
			oldest = place;
	}
	if (found == NULL)
	{
		found = oldest;
		memset(found, 0, sizeof(*found));
		found->database = database;
		strlcpy(found->kek, kek, sizeof(found->kek));
	}
	found->last_used = ++stats->clock;
	return found;
}

static int
latency_bucket(double latency_ms)
{
	if (latency_ms <= FIRST_BUCKET_MS)
		return 0;
	return Min(LATENCY_BUCKETS - 1,
			   (int) ceil(2 * log2(latency_ms / FIRST_BUCKET_MS)));
}

/*
 * Count a call.  True where the KEK's outcome is another than that of the call
 * before, so that it is worth a line in the log.  A call that began before the
 * one that had the last word is counted only: it was late, and the KEK may be
 * well again.
 */
bool
kms_stats_count_call(const KmsRequest *request, const KmsCallEnd *end)
{
	TimestampTz now = GetCurrentTimestamp();
	KekStats   *place;
	KmsOperationStats *operation;
	bool		changed = false;

	LWLockAcquire(shmem_lock(ENVELOPE_LOCK_STATS), LW_EXCLUSIVE);
	place = stats_of(request->database, end->kek);
	operation = &place->operations[request->operation];
	if (end->hint == HINT_REFUSED)
		operation->refused++;
	else
	{
		operation->calls++;
		operation->outcomes[end->outcome]++;
		operation->latencies[latency_bucket(end->latency_ms)]++;
		operation->retries += end->retry ? 1 : 0;
		operation->throttled += end->hint == HINT_THROTTLED ? 1 : 0;
	}
	place->refused_until = end->refused_ms > 0 ?
		TimestampTzPlusMilliseconds(now, end->refused_ms) : 0;
	place->credential_expires = end->credential_ms >= 0 ?
		TimestampTzPlusMilliseconds(now, end->credential_ms) : 0;

	if (!place->has_outcome || end->begun_us >= place->begun_us)
	{
		if (request->operation == KMS_CHECK && end->outcome == KMS_OK)
			strlcpy(place->rights, end->detail, sizeof(place->rights));

		/* The first call is worth a line only if it fails. */
		changed = place->has_outcome ? place->outcome != end->outcome : end->outcome != KMS_OK;
		if (changed || !place->has_outcome)
			place->since = now;
		place->has_outcome = true;
		place->outcome = end->outcome;
		place->begun_us = end->begun_us;
		strlcpy(place->detail, end->outcome == KMS_OK ? "" : end->detail,
				sizeof(place->detail));
	}
	LWLockRelease(shmem_lock(ENVELOPE_LOCK_STATS));
	return changed;
}

/* Count a caller that waits for a call, its own or that of another. */
void
kms_stats_count_wait(const KmsRequest *request)
{
	const char *kek = request->operation == KMS_REWRAP ? request->target_kek : request->kek;

	LWLockAcquire(shmem_lock(ENVELOPE_LOCK_STATS), LW_EXCLUSIVE);
	stats_of(request->database, kek)->operations[request->operation].waits++;
	LWLockRelease(shmem_lock(ENVELOPE_LOCK_STATS));
}

/*
 * The KEKs of a database that were used, in the current memory context.
 */
KekStats *
kms_stats_of_database(Oid database, int *nkeks)
{
	KekStats   *copy = palloc(STATS_KEKS * sizeof(KekStats));

	*nkeks = 0;
	LWLockAcquire(shmem_lock(ENVELOPE_LOCK_STATS), LW_SHARED);
	for (int i = 0; i < STATS_KEKS; i++)
	{
		if (stats->keks[i].database == database)
			copy[(*nkeks)++] = stats->keks[i];
	}
	LWLockRelease(shmem_lock(ENVELOPE_LOCK_STATS));
	return copy;
}

/*
 * The latency in ms below which a part (0 to 1) of the calls stayed, to within
 * a bucket.  -1 where there were none.
 */
double
kms_stats_quantile(const KmsOperationStats *operation, double quantile)
{
	uint64		below = 0;

	for (int i = 0; i < LATENCY_BUCKETS; i++)
	{
		below += operation->latencies[i];
		if (below > 0 && below >= quantile * operation->calls)
			return FIRST_BUCKET_MS * exp2(i / 2.0);
	}
	return -1;
}
