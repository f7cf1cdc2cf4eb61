/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Counters of KMS calls, and how each KEK does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_STATS_H
#define ENVELOPE_STATS_H

#include "datatype/timestamp.h"

#include "kms/kms.h"

#define LATENCY_BUCKETS 40

typedef struct KmsOperationStats
{
	uint64		calls;
	uint64		outcomes[KMS_OUTCOMES];
	uint64		waits;			/* callers that waited for a call */
	uint64		retries;		/* calls that were not the first attempt */
	uint64		throttled;		/* that the KMS put off */
	uint64		refused;		/* that were not made, by the breaker */
	uint64		latencies[LATENCY_BUCKETS];
} KmsOperationStats;

typedef struct KekStats
{
	Oid			database;		/* InvalidOid: unused */
	char		kek[KEK_NAME_MAX];
	uint64		last_used;		/* order of use */
	bool		has_outcome;
	KmsOutcome	outcome;		/* of the call that began last */
	int64		begun_us;		/* when it began, by the clock of instr_time */
	TimestampTz since;			/* when the outcome last changed */
	char		detail[KMS_DETAIL_MAX];
	char		rights[KMS_DETAIL_MAX]; /* what the last check found */
	TimestampTz refused_until;	/* by the breaker; 0: it is closed */
	TimestampTz credential_expires; /* 0: never, or there is none */
	KmsOperationStats operations[KMS_OPERATIONS];
} KekStats;

/* How a call ended */
typedef struct KmsCallEnd
{
	const char *kek;			/* that was asked */
	KmsOutcome	outcome;
	KmsHint		hint;
	const char *detail;
	int64		begun_us;		/* by the clock of instr_time */
	double		latency_ms;
	bool		retry;			/* was not the first attempt */
	int64		refused_ms;		/* the breaker will refuse calls so long */
	int64		credential_ms;	/* the credential lives so long; -1: for ever */
} KmsCallEnd;

extern Size kms_stats_shmem_size(void);
extern void kms_stats_shmem_init(void *area);

extern bool kms_stats_count_call(const KmsRequest *request, const KmsCallEnd *end);
extern void kms_stats_count_wait(const KmsRequest *request);
extern KekStats *kms_stats_of_database(Oid database, int *nkeks);
extern double kms_stats_quantile(const KmsOperationStats *operation, double quantile);

#endif							/* ENVELOPE_STATS_H */
