/*-------------------------------------------------------------------------
 *
 * call.c
 *	  The calls that the worker has under way.
 *
 * A call serves one request of the queue.  It is a small machine that the
 * worker's loop moves on whenever something has happened:
 *
 *		ATTEMPT		ask, as soon as the call is due
 *		CREDENTIAL	wait for what the KMS has to be shown
 *		ASKING		wait for the reply
 *
 * What it asks is its task; some requests take several, one after the other
 * (kms/task.c).
 *
 * Calls that ask the same KEK the same thing at the same moment go out as one
 * request where the KMS allows that: the first leads, the others ride along.
 *
 * What an answer means is decided in kms/verdict.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "keys/cache.h"
#include "kms/call.h"
#include "kms/endpoint.h"
#include "kms/provider.h"
#include "kms/queue.h"
#include "kms/retry.h"
#include "kms/task.h"
#include "kms/verdict.h"

/* How much later than curl should have, a transfer is given up here */
#define GIVE_UP_MS		1000

static Call *calls = NULL;
static int	ncalls = 0;

/* For one exchange at a time; answers and reply are wiped after each */
static Call *riders[KMS_BATCH_MAX];
static KmsTask tasks[KMS_BATCH_MAX];
static KmsAnswer answers[KMS_BATCH_MAX];
static KmsReply reply;

/* Called once in the life of the process: so many can be under way at once. */
void
calls_start(int max_calls)
{
	calls = MemoryContextAllocZero(TopMemoryContext, max_calls * sizeof(Call));
	ncalls = max_calls;
}

/* Answer a call without having asked. */
static void
answer_unasked(Call *call, const KmsAnswer *answer)
{
	answers[0] = *answer;
	call_take_answer(call, &answers[0], &reply);
	secret_wipe(&answers[0], sizeof(answers[0]));
}

/*
 * Gather what rides with a leader, in the order in which it was asked, which is
 * not that of calls: who leads is who came first to be sent.  Returns how many.
 */
static int
gather_riders(const Call *leader)
{
	int			n = 0;

	for (int i = 0; i < ncalls; i++)
	{
		Call	   *call = &calls[i];

		if (call->step == CALL_ASKING && call->leader == leader)
		{
			riders[call->place] = call;
			tasks[call->place] = call->tasks.task;
			n++;
		}
	}
	return n;
}

/* The reply to a leader's request is there, or is not to come. */
static void
finish_exchange(Call *leader)
{
	HttpExchange *exchange = &leader->exchange;
	HttpReply  *http = &exchange->reply;
	Endpoint   *endpoint = leader->endpoint;
	int			n = gather_riders(leader);

	if (exchange->done && (http->answered || exchange->request.method == NULL))
		leader->tasks.provider->parse(tasks, n, http, answers);
	else
	{
		for (int i = 0; i < n; i++)
		{
			if (http->timed_out || !exchange->done)
				answer_set(&answers[i], KMS_UNREACHABLE, HINT_TIMED_OUT,
						   "the KMS did not answer in time%s%s",
						   http->problem[0] ? ": " : "", http->problem);
			else
				answer_set(&answers[i], KMS_UNREACHABLE, HINT_NONE, "%s", http->problem);
		}
	}
	if (endpoint)
		endpoint_note(endpoint, answers[0].outcome, answers[0].hint);
	for (int i = 0; i < n; i++)
	{
		if (answers[i].request_id[0] == '\0')
			strlcpy(answers[i].request_id, http->request_id, sizeof(answers[i].request_id));
		call_take_answer(riders[i], &answers[i], &reply);
		secret_wipe(&answers[i], sizeof(answers[i]));
	}
	if (endpoint)
		endpoint_release(endpoint);
	http_reset(exchange);
}

/* See to it that the credential is there; false where it has to wait or fail. */
static bool
ready_credential(Call *call, KmsAnswer *answer)
{
	CredentialKey key = {0};

	call_use_credential(call, NULL);
	if (call->tasks.provider->identify == NULL)
		return true;
	if (!call->tasks.provider->identify(&call->tasks.task, &key, answer))
		return false;
	call_use_credential(call, credential_find(&key));
	if (call->credential == NULL)
	{
		answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "no room for its credentials");
		return false;
	}
	switch (credential_state(call->credential))
	{
		case CREDENTIAL_READY:
			call->credential_version = credential_version(call->credential);
			return true;
		case CREDENTIAL_PENDING:
			if (call->step != CALL_CREDENTIAL)
			{
				call->step = CALL_CREDENTIAL;
				call->due = call_deadline(call);
			}
			return false;
		case CREDENTIAL_FAILED:
			answer->outcome = credential_problem(call->credential, answer->detail);
			return false;
	}
	return false;
}

/*
 * Find calls that can ride, since they ask the same KEK the same; returns how
 * many ask, the leader first.
 */
static int
find_riders(Call *leader)
{
	const KmsRequest *request = leader->request;
	KmsOperation operation = leader->tasks.task.operation;
	int64		now = boottime_ms();
	int			n = 0;
	int			max = 1;

	if (operation == KMS_UNWRAP || operation == KMS_REWRAP)
		max = leader->tasks.provider->batch_max;
	riders[n] = leader;
	tasks[n++] = leader->tasks.task;
	for (int i = 0; i < ncalls && n < max; i++)
	{
		Call	   *call = &calls[i];

		if (call == leader || call->step != CALL_ATTEMPT || call->due > now ||
			call->tasks.provider != leader->tasks.provider ||
			call->tasks.task.operation != operation ||
			retry_policy(call->request->priority) != retry_policy(request->priority) ||
			(call->request->priority == KMS_BULK) != (request->priority == KMS_BULK) ||
			strcmp(call->tasks.task.uri, leader->tasks.task.uri) != 0 ||
			strcmp(call->tasks.task.options, leader->tasks.task.options) != 0 ||
			strcmp(call->tasks.task.target_uri, leader->tasks.task.target_uri) != 0 ||
			strcmp(call->tasks.task.target_options, leader->tasks.task.target_options) != 0)
			continue;
		riders[n] = call;
		tasks[n++] = call->tasks.task;
	}
	return n;
}

/* Are things such that this call may be sent now?  false with what instead */
static bool
may_send(Call *call, KmsAnswer *answer)
{
	const char *url = buffer_text(&call->exchange.request.url);
	char		host[256];
	int64		bulk_from;

	call->endpoint = NULL;
	if (call->exchange.request.method == NULL)
		return true;
	if (call->credential && !credential_may_go_to(credential_get(call->credential), url))
	{
		answer_set(answer, KMS_MISCONFIGURED, HINT_NONE,
				   "the credential may not be sent to the host of this KEK");
		return false;
	}
	if (!url_host(url, host, sizeof(host)))
		strlcpy(host, "?", sizeof(host));
	call->endpoint = endpoint_find(host, call->credential ? credential_hash(call->credential) : 0);
	if (call->endpoint == NULL)
		return true;
	bulk_from = endpoint_bulk_from(call->endpoint);
	if (call->request->priority == KMS_BULK && bulk_from > boottime_ms())
	{
		if (bulk_from < call_deadline(call))
		{
			call->due = bulk_from;
			return false;
		}
		answer_set(answer, KMS_UNREACHABLE, HINT_REFUSED,
				   "the KMS throttles, and bulk work leaves it alone for a while");
		return false;
	}
	/* Whoever checks a KEK wants to know how it is now. */
	if (!endpoint_admits(call->endpoint) && call->request->operation != KMS_CHECK)
	{
		answer_set(answer, KMS_UNREACHABLE, HINT_REFUSED,
				   "not asked, since calls to %.100s have failed lately", host);
		return false;
	}
	return true;
}

/* Build the request of a leader and its riders, if it may be sent now. */
static bool
build_request(Call *call, int n, KmsAnswer *failed)
{
	const Credential *credential = call->credential ?
		credential_get(call->credential) : NULL;

	return call->tasks.provider->build(tasks, n, credential, &call->exchange.request, failed) &&
		may_send(call, failed);
}

/* Send the request of a leader and its riders. */
static void
send_request(Call *call, int n)
{
	const RetryPolicy *policy = retry_policy(call->request->priority);
	HttpExchange *exchange = &call->exchange;
	int64		now = boottime_ms();
	int			wait = (int) Max(1, Min(policy->attempt_ms, call_deadline(call) - now));

	for (int i = 0; i < n; i++)
	{
		Call	   *rider = riders[i];

		rider->step = CALL_ASKING;
		rider->leader = call;
		rider->place = i;
		rider->attempts++;
		rider->attempted_at = call->attempted_at;
		rider->sent_at = now;
		call_use_credential(rider, call->credential);
		rider->credential_version = call->credential_version;
		rider->endpoint = call->endpoint;
		rider->due = PG_INT64_MAX;
	}

	if (exchange->request.method != NULL)
	{
		if (call->endpoint)
			endpoint_hold(call->endpoint);
		call->due = now + wait + GIVE_UP_MS;
		http_run(exchange, Min(policy->connect_ms, wait), wait);
	}
	else if (exchange->request.delay_ms < 0 || exchange->request.delay_ms > wait)
		call->due = now + wait;
	else
	{
		call->due = now + exchange->request.delay_ms;
		exchange->done = true;
	}
}

/* Ask. */
static void
attempt_call(Call *call)
{
	static KmsAnswer failed;
	int			n = 0;
	bool		ready = false;

	memset(&failed, 0, sizeof(failed));
	INSTR_TIME_SET_CURRENT(call->attempted_at);
	call->endpoint = NULL;
	if (call->tasks.provider == NULL)
		answer_set(&failed, KMS_MISCONFIGURED, HINT_NONE,
				   "no provider knows the URI of this KEK");
	else
		ready = ready_credential(call, &failed);
	if (ready)
	{
		call->step = CALL_ATTEMPT;
		n = find_riders(call);
		ready = build_request(call, n, &failed);
	}
	if (ready)
	{
		send_request(call, n);
		return;
	}

	http_reset(&call->exchange);
	if (failed.outcome != KMS_OK)
	{
		call->step = CALL_ATTEMPT;
		call->attempts++;
		answer_unasked(call, &failed);
	}
}

/*
 * Has the key come to the cache since a statement missed it there?  Whoever
 * asks only after the call that it should have joined has ended gets the same
 * answer, and the KMS no second call.
 */
static bool
answer_from_cache(Call *call)
{
	static KmsAnswer had = {.outcome = KMS_OK};
	const KmsRequest *request = call->request;
	DekId		id = {request->database, request->key_id};
	DekLease	lease;

	if (request->operation != KMS_UNWRAP || request->priority != KMS_FOREGROUND ||
		!dek_cache_lookup(&id, request->tenant, &reply.subkeys, &lease))
		return false;
	if (!lease.may_seal || lease.refresh_due || lease.generation != request->generation)
	{
		secret_wipe(&reply, sizeof(reply));
		return false;
	}
	call_finish(call, &had, &reply);
	return true;
}

/* Begin to work on a request that was claimed. */
static void
begin_call(Call *call, int slot)
{
	KmsAnswer  *recalled = &answers[0];

	memset(call, 0, sizeof(*call));
	call->slot = slot;
	call->request = kms_queue_request(slot);
	call->begun_at = call->due = boottime_ms();
	call->step = CALL_ATTEMPT;
	tasks_begin(&call->tasks, call->request);

	if (answer_from_cache(call))
		return;
	if (call->tasks.provider && call->request->operation == KMS_UNWRAP &&
		denials_recall(call->request, &recalled->outcome, recalled->detail))
	{
		call_finish(call, recalled, &reply);
		secret_wipe(recalled, sizeof(*recalled));
	}
}

/* Let every free call take a request that may run; false if there was none. */
static bool
claim_requests(void)
{
	bool		claimed = false;

	for (int i = 0; i < ncalls; i++)
	{
		int			slot;

		if (calls[i].step != CALL_FREE)
			continue;
		slot = kms_queue_claim();
		if (slot < 0)
			break;
		begin_call(&calls[i], slot);
		claimed = true;
	}
	return claimed;
}

/* Is the reply to a leader's request there, or given up? */
static bool
reply_is_due(Call *call, int64 now)
{
	const HttpExchange *exchange = &call->exchange;
	instr_time	elapsed;

	if (exchange->done && exchange->request.method != NULL)
		return true;
	if (now < call->due)
		return false;
	if (!exchange->done)
		return true;

	/*
	 * Ordered to be late: by so much at least, parts of milliseconds
	 * included.
	 */
	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, call->attempted_at);
	if (INSTR_TIME_GET_MILLISEC(elapsed) >= exchange->request.delay_ms)
		return true;
	call->due = now + 1;
	return false;
}

/* Move a call on, if its time has come. */
static void
advance_call(Call *call)
{
	int64		now = boottime_ms();

	switch (call->step)
	{
		case CALL_FREE:
			break;
		case CALL_ATTEMPT:
			if (now >= call->due)
				attempt_call(call);
			break;
		case CALL_CREDENTIAL:
			if (now >= call->due)
			{
				static KmsAnswer late;

				call->step = CALL_ATTEMPT;
				call->attempts++;
				answer_set(&late, KMS_UNREACHABLE, HINT_REFUSED,
						   "credentials did not come in time");
				answer_unasked(call, &late);
			}
			else if (credential_state(call->credential) != CREDENTIAL_PENDING)
				attempt_call(call);
			break;
		case CALL_ASKING:
			if (call->leader == call && reply_is_due(call, now))
				finish_exchange(call);
			break;
	}
}

/*
 * Move on every call whose time has come, and let the free ones take a request,
 * one each: a KEK that answers at once and is asked without end must not hold up
 * what else the worker does.  True where there may be more to do at once.
 */
bool
calls_advance(void)
{
	for (int i = 0; i < ncalls; i++)
		advance_call(&calls[i]);
	return claim_requests();
}

/* When there is something to do at the latest, boottime_ms() */
int64
calls_next_due(void)
{
	int64		due = PG_INT64_MAX;

	for (int i = 0; i < ncalls; i++)
	{
		if (calls[i].step == CALL_ASKING && calls[i].exchange.done &&
			calls[i].exchange.request.method != NULL)
			return 0;
		if (calls[i].step != CALL_FREE)
			due = Min(due, calls[i].due);
	}
	return due;
}
