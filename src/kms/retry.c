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
	Oid			database;
	int64		key_id;
	char		kek[KEK_NAME_MAX];
	uint64		generation;
	KmsOutcome	outcome;
	int			times;			/* in a row */
	int64		until;			/* boottime_ms() */
	char		detail[KMS_DETAIL_MAX];
} Denial;

/* Only the first of them are used, so that where all is well none is looked at. */
static Denial denials[DENIALS_MAX];
static int	ndenials = 0;

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

/* What is remembered of a key, or NULL */
static Denial *
find_denial(const KmsRequest *request)
{
	for (int i = 0; i < ndenials; i++)
	{
		if (denials[i].key_id == request->key_id &&
			denials[i].database == request->database)
			return &denials[i];
	}
	return NULL;
}

/* A place for one more: where all are taken, the one that ends first goes. */
static Denial *
new_denial(void)
{
	Denial	   *first = &denials[0];

	if (ndenials < DENIALS_MAX)
		return &denials[ndenials++];
	for (int i = 1; i < ndenials; i++)
	{
		if (denials[i].until < first->until)
			first = &denials[i];
	}
	return first;
}

/* Remember it no more; another one moves to its place. */
static void
remove_denial(Denial *denial)
{
	*denial = denials[--ndenials];
}

/*
 * Remember that a key could not be had, as long as its tenant's generation is
 * this one.
 */
void
denials_note(const KmsRequest *request, uint64 generation,
			 KmsOutcome outcome, const char *detail)
{
	Denial	   *denial = find_denial(request);
	double		ms = REMEMBER_MS;
	int			times = denial && denial->outcome == outcome ? denial->times + 1 : 1;

	if (denial == NULL)
		denial = new_denial();
	denial->times = times;
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
	const Denial *denial = find_denial(request);

	if (denial == NULL || denial->generation != request->generation ||
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
	Denial	   *denial = find_denial(request);

	if (denial)
		remove_denial(denial);
}

/*
 * This KEK is well again: what could not be had because it was
 * not can be asked for at once.  Denials may be about single keys.
 */
void
denials_forget_kek(Oid database, const char *kek, bool denied_too)
{
	for (int i = ndenials - 1; i >= 0; i--)
	{
		Denial	   *denial = &denials[i];

		if (denial->database == database &&
			(denied_too || denial->outcome != KMS_DENIED) &&
			strcmp(denial->kek, kek) == 0)
			remove_denial(denial);
	}
}

void
denials_forget_all(void)
{
	ndenials = 0;
}
