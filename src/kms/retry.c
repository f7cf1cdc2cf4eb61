/*-------------------------------------------------------------------------
 *
 * retry.c
 *	  How often, how long and when to ask a KMS again.
 *
 * A statement that waits gets a few quick attempts; a refresh, which nobody
 * waits for, gets more and longer ones.  Waits between attempts are drawn from
 * zero to an exponentially growing bound ("full jitter"), so that those who
 * failed together do not come back together.
 *
 * What could not be had is remembered for a short while and not asked for
 * again, so that neither a KMS in trouble nor its bill has to bear what a busy
 * application does with a key that it cannot have.  The memory is the worker's
 * own and holds DENIALS_MAX keys; one that is evicted in SQL (its generation
 * has moved on) is asked for at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "compat.h"
#include "kms/retry.h"

#define DENIALS_MAX			1024

/* How long it is remembered that a key could not be had, the first time */
#define REMEMBER_MS			1000
/* And that it was denied again, more or less DENIED_JITTER */
#define DENIED_AGAIN_MS		30000
#define DENIED_JITTER		0.2

static const RetryPolicy foreground = {
	.attempts = 3,
	.connect_ms = 1000,
	.attempt_ms = 2000,
	.whole_ms = 5000,
	.backoff_ms = 50,
	.backoff_max_ms = 1000,
	.throttled_ms = 500,
	.throttled_max_ms = 2000
};

static const RetryPolicy background = {
	.attempts = 5,
	.connect_ms = 3000,
	.attempt_ms = 5000,
	.whole_ms = 30000,
	.backoff_ms = 50,
	.backoff_max_ms = 1000,
	.throttled_ms = 1000,
	.throttled_max_ms = 20000
};

typedef struct Denial
{
	Oid			database;		/* InvalidOid: unused */
	int64		key_id;
	char		kek[KEK_NAME_MAX];
	uint64		generation;
	KmsOutcome	outcome;
	int			times;			/* in a row */
	int64		until;			/* boottime_ms() */
	char		detail[KMS_DETAIL_MAX];
} Denial;

static Denial denials[DENIALS_MAX];

const RetryPolicy *
retry_policy(KmsPriority priority)
{
	return priority == KMS_REFRESH ? &background : &foreground;
}

/*
 * How long to wait after so many attempts, in ms.
 */
int
retry_backoff_ms(const RetryPolicy *policy, int attempts_made, bool throttled)
{
	int64		bound = throttled ? policy->throttled_ms : policy->backoff_ms;

	bound <<= Min(Max(attempts_made - 1, 0), 16);
	bound = Min(bound, throttled ? policy->throttled_max_ms : policy->backoff_max_ms);
	return (int) pg_prng_uint64_range(&pg_global_prng_state, 0, bound);
}

/* The place of a key: one of few, the one that ends first making room. */
static Denial *
place_of(const KmsRequest *request, bool *found)
{
	Denial	   *first = &denials[0];

	*found = true;
	for (int i = 0; i < DENIALS_MAX; i++)
	{
		Denial	   *denial = &denials[i];

		if (denial->database == request->database &&
			denial->key_id == request->key_id)
			return denial;
		if (denial->until < first->until)
			first = denial;
	}
	*found = false;
	return first;
}

/*
 * Remember that a key could not be had, as long as its tenant's generation is
 * this one.
 */
void
denials_note(const KmsRequest *request, uint64 generation,
			 KmsOutcome outcome, const char *detail)
{
	bool		found;
	Denial	   *denial = place_of(request, &found);
	double		ms = REMEMBER_MS;

	denial->times = found && denial->outcome == outcome ? denial->times + 1 : 1;
	if (outcome == KMS_DENIED && denial->times > 1)
		ms = DENIED_AGAIN_MS *
			(1 - DENIED_JITTER + 2 * DENIED_JITTER * pg_prng_double(&pg_global_prng_state));
	denial->database = request->database;
	denial->key_id = request->key_id;
	strlcpy(denial->kek, request->kek, sizeof(denial->kek));
	denial->generation = generation;
	denial->outcome = outcome;
	denial->until = boottime_ms() + (int64) ms;
	strlcpy(denial->detail, detail, sizeof(denial->detail));
}

/*
 * Could a key not be had a short while ago?  detail has KMS_DETAIL_MAX bytes.
 */
bool
denials_recall(const KmsRequest *request, KmsOutcome *outcome, char *detail)
{
	bool		found;
	Denial	   *denial = place_of(request, &found);

	if (!found || denial->generation != request->generation ||
		boottime_ms() >= denial->until)
		return false;
	*outcome = denial->outcome;
	strlcpy(detail, denial->detail, KMS_DETAIL_MAX);
	return true;
}

/* The key was had. */
void
denials_forget(const KmsRequest *request)
{
	bool		found;
	Denial	   *denial = place_of(request, &found);

	if (found)
		memset(denial, 0, sizeof(*denial));
}

/*
 * This KEK is well again: what could not be had because it was
 * not can be asked for at once.  Denials may be about single keys.
 */
void
denials_forget_kek(Oid database, const char *kek, bool denied_too)
{
	for (int i = 0; i < DENIALS_MAX; i++)
	{
		Denial	   *denial = &denials[i];

		if (denial->database == database &&
			(denied_too || denial->outcome != KMS_DENIED) &&
			strcmp(denial->kek, kek) == 0)
			memset(denial, 0, sizeof(*denial));
	}
}

void
denials_forget_all(void)
{
	memset(denials, 0, sizeof(denials));
}
