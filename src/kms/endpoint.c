/*-------------------------------------------------------------------------
 *
 * endpoint.c
 *	  How each KMS does, and whether it makes sense to ask it now.
 *
 * An endpoint is a host as one credential sees it: a throttled account or a
 * role that hangs says nothing about others at the same host.  Each has a
 * breaker.  Once half of the calls of the last WINDOW_MS fail for reasons that
 * may pass, or a few in a row time out, calls are refused at once for a while,
 * instead of each waiting for its own timeout; then one call may probe, and its
 * outcome decides.  The while doubles as long as probes fail.
 *
 * What a KMS denies, or finds corrupt, is an answer: it works.
 *
 * ENDPOINTS_MAX are remembered.  One more takes the place of one that nobody
 * asks at the moment and that is not known to fail, the one asked least lately;
 * so those that hang are forgotten last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "kms/endpoint.h"

#define ENDPOINTS_MAX		1024

#define WINDOW_MS			10000
#define CALLS_MIN			20	/* in a window, before it is judged */
#define TIMEOUTS_MAX		5	/* in a row */
#define REFUSE_MS			5000	/* first */
#define REFUSE_MAX_MS		60000
/* A probe whose end nobody saw */
#define PROBE_MS			10000
/* How long bulk work leaves a KMS alone that throttles */
#define BULK_PAUSE_MS		10000

struct Endpoint
{
	char		host[256];
	uint64		credential;
	int64		used_at;
	int			users;			/* calls under way */

	int64		window_from;
	int			calls;			/* in the window */
	int			failures;
	int			timeouts;		/* in a row */

	bool		open;			/* calls are refused */
	int64		refuse_ms;
	int64		refuse_until;
	int64		probe_until;	/* somebody probes; 0: nobody */
	int64		bulk_from;
};

/* Only the first of them are used. */
static Endpoint endpoints[ENDPOINTS_MAX];
static int	nendpoints = 0;

/* Does one endpoint make room rather than the other? */
static bool
makes_room_before(const Endpoint *one, const Endpoint *other)
{
	if (one->open != other->open)
		return other->open;
	return one->used_at < other->used_at;
}

/* A place for one more; NULL where all are asked at the moment. */
static Endpoint *
new_endpoint(void)
{
	Endpoint   *first = NULL;

	if (nendpoints < ENDPOINTS_MAX)
		return &endpoints[nendpoints++];
	for (int i = 0; i < nendpoints; i++)
	{
		if (endpoints[i].users == 0 &&
			(first == NULL || makes_room_before(&endpoints[i], first)))
			first = &endpoints[i];
	}
	return first;
}

/*
 * Find an endpoint, or make one; credential is a number that tells them apart.
 * NULL where there is no place for it: then nothing is known of it.  What is
 * returned is good until the next call, unless it is held.
 */
Endpoint *
endpoint_find(const char *host, uint64 credential)
{
	Endpoint   *endpoint;

	for (int i = 0; i < nendpoints; i++)
	{
		endpoint = &endpoints[i];
		if (endpoint->credential == credential && strcmp(endpoint->host, host) == 0)
		{
			endpoint->used_at = boottime_ms();
			return endpoint;
		}
	}
	endpoint = new_endpoint();
	if (endpoint == NULL)
		return NULL;
	memset(endpoint, 0, sizeof(*endpoint));
	strlcpy(endpoint->host, host, sizeof(endpoint->host));
	endpoint->credential = credential;
	endpoint->used_at = boottime_ms();
	return endpoint;
}

/* A call is under way: the endpoint stays what it is until it is released. */
void
endpoint_hold(Endpoint *endpoint)
{
	endpoint->users++;
}

void
endpoint_release(Endpoint *endpoint)
{
	Assert(endpoint->users > 0);
	endpoint->users--;
}

/*
 * May it be asked now?  A call that was let in must be noted when it ends.
 */
bool
endpoint_admits(Endpoint *endpoint)
{
	int64		now = boottime_ms();

	if (!endpoint->open)
		return true;
	if (now < endpoint->refuse_until || now < endpoint->probe_until)
		return false;
	endpoint->probe_until = now + PROBE_MS;
	return true;
}

/* From when on bulk work may ask it, boottime_ms() */
int64
endpoint_bulk_from(const Endpoint *endpoint)
{
	return endpoint->bulk_from;
}

/* Until when calls are refused, boottime_ms(); 0: they are not. */
int64
endpoint_refuses_until(const Endpoint *endpoint)
{
	return endpoint->open ? endpoint->refuse_until : 0;
}

static void
refuse(Endpoint *endpoint, int64 now)
{
	endpoint->refuse_ms = endpoint->open ?
		Min(2 * endpoint->refuse_ms, REFUSE_MAX_MS) : REFUSE_MS;
	endpoint->open = true;
	endpoint->refuse_until = now + endpoint->refuse_ms;
	endpoint->probe_until = 0;
}

/* A call that was let in has ended so. */
void
endpoint_note(Endpoint *endpoint, KmsOutcome outcome, KmsHint hint)
{
	int64		now = boottime_ms();
	bool		failed = outcome == KMS_UNREACHABLE;

	if (hint == HINT_THROTTLED)
		endpoint->bulk_from = now + BULK_PAUSE_MS;
	endpoint->timeouts = hint == HINT_TIMED_OUT ? endpoint->timeouts + 1 : 0;

	if (endpoint->open)
	{
		/* Calls that began before it opened decide nothing, if they fail. */
		if (!failed)
			endpoint->open = false;
		else if (endpoint->probe_until > 0)
			refuse(endpoint, now);
		endpoint->calls = endpoint->failures = endpoint->timeouts = 0;
		return;
	}
	if (now >= endpoint->window_from + WINDOW_MS)
	{
		endpoint->window_from = now;
		endpoint->calls = endpoint->failures = 0;
	}
	endpoint->calls++;
	endpoint->failures += failed ? 1 : 0;
	if ((endpoint->calls >= CALLS_MIN && 2 * endpoint->failures >= endpoint->calls) ||
		endpoint->timeouts >= TIMEOUTS_MAX)
		refuse(endpoint, now);
}

/* Forget how they did; calls that are under way still have theirs. */
void
endpoints_forget(void)
{
	for (int i = 0; i < nendpoints; i++)
	{
		Endpoint	was = endpoints[i];

		memset(&endpoints[i], 0, sizeof(endpoints[i]));
		strlcpy(endpoints[i].host, was.host, sizeof(endpoints[i].host));
		endpoints[i].credential = was.credential;
		endpoints[i].used_at = was.used_at;
		endpoints[i].users = was.users;
	}
}
