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
 * What an answer means for a key that is in memory:
 *
 *		ok				stored, for a new TTL
 *		denied			suspect; asked once more with a fresh credential, no
 *						sooner than CONFIRM_MS later; denied again, wiped
 *						everywhere
 *		unreachable		lives on to the end of TTL and grace
 *		misconfigured	the same: somebody here made a mistake, nobody withdrew
 *		corrupt			lives to the end of its TTL
 *
 * A key that is suspect and whose second answer does not come stays suspect,
 * and is gone after a few seconds.  A key that is not in memory is simply not
 * to be had, whatever the reason.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/memutils.h"

#include "compat.h"
#include "keys/cache.h"
#include "kms/call.h"
#include "kms/calllog.h"
#include "kms/endpoint.h"
#include "kms/provider.h"
#include "kms/queue.h"
#include "kms/retry.h"
#include "kms/stats.h"
#include "kms/task.h"
#include "settings.h"

/* The second call after a denial comes no sooner than this */
#define CONFIRM_MS		1000
/* How much later than curl should have, a transfer is given up here */
#define GIVE_UP_MS		1000
/* So much before its deadline a caller gets what there is to say. */
#define MARGIN_MS		50

typedef enum CallStep
{
	CALL_FREE,
	CALL_ATTEMPT,
	CALL_CREDENTIAL,
	CALL_ASKING
} CallStep;

typedef struct Call
{
	CallStep	step;
	int64		due;			/* when to take the step, boottime_ms() */
	int			slot;			/* of the queue */
	const KmsRequest *request;	/* of the slot */
	Tasks		tasks;			/* that it takes */
	int			attempts;		/* at the present one, made so far */
	bool		confirming;		/* was denied once */
	bool		credential_tried;	/* was refused with one credential */
	int64		begun_at;
	instr_time	attempted_at;
	int64		sent_at;		/* the same, boottime_ms() */

	CredentialEntry *credential;	/* held; NULL: it takes none */
	uint64		credential_version;
	Endpoint   *endpoint;		/* held while ASKING; NULL: nothing is sent */
	struct Call *leader;		/* itself, or that with which it rides */
	int			place;			/* among those that ride; the leader's is 0 */
	HttpExchange exchange;		/* of a leader */
} Call;

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

/* Count the answer, and log it where the KEK has changed its ways. */
static void
note_answer(const Call *call, const KmsAnswer *answer)
{
	const KmsRequest *request = call->request;
	const char *kek = call->tasks.task.kek;
	instr_time	latency;
	KmsCallEnd	end = {0};

	INSTR_TIME_SET_CURRENT(latency);
	INSTR_TIME_SUBTRACT(latency, call->attempted_at);
	end.kek = kek;
	end.outcome = answer->outcome;
	end.hint = answer->hint;
	end.detail = answer->detail;
	end.begun_us = (int64) INSTR_TIME_GET_MICROSEC(call->attempted_at);
	end.latency_ms = INSTR_TIME_GET_MILLISEC(latency);
	end.retry = call->attempts > 1;
	end.credential_ms = call->credential ? credential_expires_in_ms(call->credential) : -1;
	end.refused_ms = call->endpoint ?
		Max(0, endpoint_refuses_until(call->endpoint) - boottime_ms()) : 0;
	if (!kms_stats_count_call(request, &end))
		return;
	if (answer->outcome == KMS_OK)
	{
		denials_forget_kek(request->database, kek, false);
		ereport(LOG,
				(errmsg("envelope: KEK \"%s\" of database %u is ok again",
						kek, request->database)));
	}
	else
		ereport(LOG,
				(errmsg("envelope: KEK \"%s\" of database %u is %s",
						kek, request->database,
						kms_outcome_name(answer->outcome)),
				 errdetail("Asked to %s: %s",
						   kms_operation_name(call->tasks.task.operation), answer->detail)));
}

/* Hold a credential instead of the one held so far. */
static void
use_credential(Call *call, CredentialEntry *entry)
{
	if (entry)
		credential_hold(entry);
	if (call->credential)
		credential_release(call->credential);
	call->credential = entry;
}

/* Give the reply to all who wait, and be free for another call. */
static void
finish_call(Call *call, const KmsAnswer *answer)
{
	reply.outcome = answer->outcome;
	strlcpy(reply.detail, answer->detail, sizeof(reply.detail));
	kms_queue_finish(call->slot, &reply);
	secret_wipe(&reply, sizeof(reply));
	tasks_wipe(&call->tasks);
	use_credential(call, NULL);
	call->step = CALL_FREE;
}

/* Until when a call makes sense, boottime_ms() */
static int64
deadline_of(const Call *call)
{
	return Min(kms_queue_deadline(call->slot) - MARGIN_MS,
			   call->begun_at + retry_policy(call->request->priority)->whole_ms);
}

/* Try again later, if that makes sense. */
static bool
retry_call(Call *call, KmsHint hint)
{
	const RetryPolicy *policy = retry_policy(call->request->priority);

	if (call->attempts >= policy->attempts || hint == HINT_REFUSED ||
		!kms_queue_is_wanted(call->slot))
		return false;
	call->due = boottime_ms() +
		retry_backoff_ms(policy, call->attempts, hint == HINT_THROTTLED);
	if (call->due >= deadline_of(call))
		return false;
	call->step = CALL_ATTEMPT;
	return true;
}

/* A KMS did not take the credential: try another one, once. */
static bool
retry_with_other_credential(Call *call, KmsHint hint)
{
	bool		doubted = hint == HINT_CREDENTIAL_DOUBTED;

	if (!call->credential || call->credential_tried ||
		(!doubted && hint != HINT_CREDENTIAL_DEAD) ||
		(doubted && credential_is_confirmed(call->credential, call->sent_at)) ||
		!credential_refuse(call->credential, call->credential_version, doubted))
		return false;
	call->credential_tried = true;
	call->attempts--;
	call->step = CALL_ATTEMPT;
	call->due = boottime_ms();
	return true;
}

/*
 * Act on what an answer that is not ok means for the key in memory.  True where
 * it has to be asked once more.
 */
static bool
judge_key(Call *call, const KmsAnswer *answer)
{
	const KmsRequest *request = call->request;
	DekId		id = {request->database, request->key_id};

	switch (answer->outcome)
	{
		case KMS_DENIED:
			if (!call->confirming &&
				dek_cache_judge(&id, request->tenant, DEK_DENIED_ONCE))
			{
				call->confirming = true;
				call->attempts = 0;
				call->credential_tried = false;
				call->step = CALL_ATTEMPT;
				call->due = boottime_ms() + CONFIRM_MS;
				if (call->credential)
					credential_renew(call->credential);
				return true;
			}
			(void) dek_cache_judge(&id, request->tenant, DEK_DENIED);
			break;
		case KMS_CORRUPT:
			(void) dek_cache_judge(&id, request->tenant, DEK_UNCHANGED);
			break;
		case KMS_UNREACHABLE:
		case KMS_MISCONFIGURED:
			if (!call->confirming)
				(void) dek_cache_judge(&id, request->tenant, DEK_UNREACHABLE);
			break;
		case KMS_OK:
			break;
	}
	return false;
}

/* Act on an answer that is not ok. */
static void
take_failure(Call *call, KmsAnswer *answer)
{
	const KmsRequest *request = call->request;

	if ((answer->outcome == KMS_UNREACHABLE || answer->hint == HINT_MANGLED) &&
		retry_call(call, answer->hint))
	{
		/* A refresh may be too late for the key when its last attempt fails. */
		if (request->operation == KMS_UNWRAP && answer->outcome == KMS_UNREACHABLE)
			(void) judge_key(call, answer);
		return;
	}
	if (request->operation == KMS_UNWRAP)
	{
		bool		evicted = request->generation !=
			dek_cache_generation(request->database, request->tenant);

		if (judge_key(call, answer))
			return;
		/* Who was evicted in SQL wants to be asked for anew. */
		if (!evicted)
			denials_note(request,
						 dek_cache_generation(request->database, request->tenant),
						 answer->outcome, answer->detail);
	}
	finish_call(call, answer);
}

/*
 * The KEK works, and this is what is found about its credential: that what it
 * may do cannot be told is no fault of it.
 */
static void
take_check(const Call *call, KmsAnswer *answer)
{
	const char *finding = call->credential ?
		credential_get(call->credential)->finding : NULL;
	size_t		len;

	if (answer->outcome != KMS_OK)
		answer_set(answer, KMS_OK, HINT_NONE, "%s", "");
	len = strlen(answer->detail);
	if (finding)
		snprintf(answer->detail + len, sizeof(answer->detail) - len, "%s%s",
				 len > 0 ? "; " : "", finding);
}

/* Act on the answer to a call's task. */
static void
take_answer(Call *call, KmsAnswer *answer)
{
	const KmsRequest *request = call->request;

	text_make_harmless(answer->detail);
	text_make_harmless(answer->request_id);
	if (envelope_log_kms_calls && answer->hint != HINT_REFUSED)
		call_log(request, &call->tasks.task, answer, &call->attempted_at);

	if (call->tasks.task.operation == KMS_CHECK)
		take_check(call, answer);
	if (retry_with_other_credential(call, answer->hint))
		return;
	if (call->credential && answer->outcome == KMS_OK)
		credential_accept(call->credential);
	if (answer->outcome == KMS_OK && tasks_next(&call->tasks, answer))
	{
		call->attempts = 0;
		call->credential_tried = false;
		call->step = CALL_ATTEMPT;
		call->due = boottime_ms();
		return;
	}
	if (tasks_accept(&call->tasks, answer, &reply))
	{
		note_answer(call, answer);
		if (request->operation == KMS_UNWRAP)
			denials_forget(request);
		/* Somebody has mended something, and wants to see whether it works. */
		if (request->operation == KMS_CHECK)
			denials_forget_kek(request->database, call->tasks.task.kek, true);
		finish_call(call, answer);
	}
	else
	{
		note_answer(call, answer);
		take_failure(call, answer);
	}
}

/* Answer a call without having asked. */
static void
answer_unasked(Call *call, const KmsAnswer *answer)
{
	answers[0] = *answer;
	take_answer(call, &answers[0]);
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
		take_answer(riders[i], &answers[i]);
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

	use_credential(call, NULL);
	if (call->tasks.provider->identify == NULL)
		return true;
	if (!call->tasks.provider->identify(&call->tasks.task, &key, answer))
		return false;
	use_credential(call, credential_find(&key));
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
				call->due = deadline_of(call);
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
		if (bulk_from < deadline_of(call))
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
	int			wait = (int) Max(1, Min(policy->attempt_ms, deadline_of(call) - now));

	for (int i = 0; i < n; i++)
	{
		Call	   *rider = riders[i];

		rider->step = CALL_ASKING;
		rider->leader = call;
		rider->place = i;
		rider->attempts++;
		rider->attempted_at = call->attempted_at;
		rider->sent_at = now;
		use_credential(rider, call->credential);
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
	finish_call(call, &had);
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
		finish_call(call, recalled);
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
