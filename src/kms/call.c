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
 * What it asks is its task.  Some requests take several, one after the other:
 *
 *		unwrap, generate	one; a KMS that draws no keys wraps what we draw
 *		check				generate, unwrap, compare; ask what else is allowed
 *		rewrap				unwrap and wrap for the target, or re-wrap inside
 *							the KMS where it can; then unwrap what came of it.
 *							Where wrapping would make a KEK that is not there,
 *							a data key is generated first, and dropped.
 *
 * A re-wrapped key is passed on only when its new wrapping was unwrapped and
 * found to be the same key.  No data key leaves the worker for it.
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
#include "crypto/derive.h"
#include "keys/cache.h"
#include "kms/accept.h"
#include "kms/call.h"
#include "kms/calllog.h"
#include "kms/endpoint.h"
#include "kms/provider.h"
#include "kms/queue.h"
#include "kms/retry.h"
#include "kms/stats.h"
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

/* What earlier tasks of a call have made; holds a key between two of them */
typedef struct Made
{
	Dek			dek;
	char		kek_version[KEK_VERSION_MAX];
	int			wrapped_len;
	uint8		wrapped[WRAPPED_DEK_MAX];
} Made;

typedef struct Call
{
	CallStep	step;
	int64		due;			/* when to take the step, boottime_ms() */
	int			slot;			/* of the queue */
	const KmsRequest *request;	/* of the slot */
	KmsTask		task;
	Made		made;
	const KmsProvider *provider;	/* of the task's KEK */
	int			attempts;		/* made so far */
	bool		drawn;			/* a data key, by us */
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

/* Ask the source's KEK, or that of the target, for something from now on. */
static void
set_task(Call *call, KmsOperation operation, bool target)
{
	const KmsRequest *request = call->request;
	KmsTask    *task = &call->task;
	bool		made = call->made.wrapped_len > 0;

	memset(task, 0, sizeof(*task));
	task->operation = operation;
	task->kek = target ? request->target_kek : request->kek;
	task->uri = target ? request->target_uri : request->uri;
	task->options = target ? request->target_options : request->options;
	task->tenant = request->tenant;
	task->key_id = request->key_id;
	task->dek = &call->made.dek;
	task->kek_version = made ? call->made.kek_version : request->kek_version;
	task->wrapped = made ? call->made.wrapped : request->wrapped;
	task->wrapped_len = made ? call->made.wrapped_len : request->wrapped_len;
	task->target_uri = request->target_uri;
	task->target_options = request->target_options;
	call->provider = kms_provider_for(task->uri);
	call->attempts = 0;
	call->credential_tried = false;
}

/*
 * Ask for a new key.  Where the KMS draws none we do, and ask to wrap it.
 */
static void
set_generating_task(Call *call)
{
	set_task(call, KMS_GENERATE, false);
	if (call->provider && call->provider->only_wraps)
	{
		set_task(call, KMS_WRAP, false);
		call->drawn = dek_generate(&call->made.dek);
	}
}

/* A new key was generated, or wrapped: is it there? */
static bool
take_generated(Call *call, KmsAnswer *answer)
{
	if (call->task.operation != KMS_WRAP)
		return true;
	if (call->drawn)
	{
		answer->dek = call->made.dek;
		return true;
	}
	answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "could not draw a data key");
	return false;
}

/* Ask the first thing that a request takes. */
static void
set_first_task(Call *call)
{
	switch (call->request->operation)
	{
		case KMS_GENERATE:
		case KMS_CHECK:
			set_generating_task(call);
			break;
		case KMS_REWRAP:
			set_task(call, KMS_UNWRAP, false);
			if (call->provider && call->provider->can_rewrap &&
				call->provider == kms_provider_for(call->request->target_uri) &&
				call->provider->can_rewrap(&call->task))
				set_task(call, KMS_REWRAP, false);
			break;
		default:
			set_task(call, call->request->operation, false);
			break;
	}
}

/* Keep what a task has wrapped, to unwrap it. */
static bool
keep_wrapped(Call *call, KmsAnswer *answer)
{
	Made	   *made = &call->made;

	if (!accept_wrapped(answer))
		return false;
	made->dek = answer->dek;
	strlcpy(made->kek_version, answer->kek_version, sizeof(made->kek_version));
	made->wrapped_len = answer->wrapped_len;
	memcpy(made->wrapped, answer->wrapped, answer->wrapped_len);
	return true;
}

/*
 * A task was answered ok: is there another one?  The answer is made a failed
 * one where it is not what was asked for.
 */
static bool
set_next_task(Call *call, KmsAnswer *answer)
{
	KmsOperation asked = call->task.operation;

	switch (call->request->operation)
	{
		case KMS_CHECK:
			if (asked == KMS_CHECK)
				return false;	/* the last one */
			if (asked == KMS_UNWRAP)
			{
				if (memcmp(&call->made.dek, &answer->dek, sizeof(Dek)) != 0)
				{
					answer_set(answer, KMS_CORRUPT, HINT_NONE,
							   "unwrapped another key than was generated");
					return false;
				}
				if (!call->provider->tells_rights)
					return false;
				set_task(call, KMS_CHECK, false);
				return true;
			}
			if (!take_generated(call, answer) || !keep_wrapped(call, answer))
				return false;
			set_task(call, KMS_UNWRAP, false);
			return true;
		case KMS_REWRAP:
			if (asked == KMS_UNWRAP && call->made.wrapped_len > 0)
				return false;	/* the last one */
			if (asked == KMS_UNWRAP)
			{
				if (!accept_is_key(call->request, answer))
					return false;
				call->made.dek = answer->dek;
				set_task(call, KMS_WRAP, true);
				if (call->provider && call->provider->wrap_creates)
					set_task(call, KMS_GENERATE, true);
				return true;
			}
			if (asked == KMS_GENERATE)
			{
				/* The target is there; its key is not needed. */
				set_task(call, KMS_WRAP, true);
				return true;
			}
			if (!keep_wrapped(call, answer))
				return false;
			set_task(call, KMS_UNWRAP, true);
			return true;
		default:
			return false;
	}
}

/* All tasks were answered ok: make the reply; false where it is not to be. */
static bool
accept_answer(Call *call, KmsAnswer *answer)
{
	const KmsRequest *request = call->request;

	if (answer->outcome != KMS_OK)
		return false;
	switch (request->operation)
	{
		case KMS_UNWRAP:
			return accept_unwrapped(request, answer, &reply);
		case KMS_GENERATE:
			return take_generated(call, answer) &&
				accept_generated(request, answer, &reply);
		case KMS_REWRAP:
			if (!accept_is_key(request, answer))
				return false;
			strlcpy(reply.kek_version, call->made.kek_version, sizeof(reply.kek_version));
			reply.wrapped_len = call->made.wrapped_len;
			memcpy(reply.wrapped, call->made.wrapped, call->made.wrapped_len);
			return true;
		case KMS_CHECK:
			return true;
		case KMS_WRAP:
			break;
	}
	return false;
}

/* Count the answer, and log it where the KEK has changed its ways. */
static void
note_answer(const Call *call, const KmsAnswer *answer)
{
	const KmsRequest *request = call->request;
	const char *kek = call->task.kek;
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
						   kms_operation_name(call->task.operation), answer->detail)));
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
	secret_wipe(&call->made.dek, sizeof(call->made.dek));
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
		call_log(request, &call->task, answer, &call->attempted_at);

	if (call->task.operation == KMS_CHECK)
		take_check(call, answer);
	if (retry_with_other_credential(call, answer->hint))
		return;
	if (call->credential && answer->outcome == KMS_OK)
		credential_accept(call->credential);
	if (answer->outcome == KMS_OK && set_next_task(call, answer))
	{
		call->step = CALL_ATTEMPT;
		call->due = boottime_ms();
		return;
	}
	if (accept_answer(call, answer))
	{
		note_answer(call, answer);
		if (request->operation == KMS_UNWRAP)
			denials_forget(request);
		/* Somebody has mended something, and wants to see whether it works. */
		if (request->operation == KMS_CHECK)
			denials_forget_kek(request->database, call->task.kek, true);
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
			tasks[call->place] = call->task;
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
		leader->provider->parse(tasks, n, http, answers);
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
	if (call->provider->identify == NULL)
		return true;
	if (!call->provider->identify(&call->task, &key, answer))
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
	KmsOperation operation = leader->task.operation;
	int64		now = boottime_ms();
	int			n = 0;
	int			max = 1;

	if (operation == KMS_UNWRAP || operation == KMS_REWRAP)
		max = leader->provider->batch_max;
	riders[n] = leader;
	tasks[n++] = leader->task;
	for (int i = 0; i < ncalls && n < max; i++)
	{
		Call	   *call = &calls[i];

		if (call == leader || call->step != CALL_ATTEMPT || call->due > now ||
			call->provider != leader->provider ||
			call->task.operation != operation ||
			retry_policy(call->request->priority) != retry_policy(request->priority) ||
			(call->request->priority == KMS_BULK) != (request->priority == KMS_BULK) ||
			strcmp(call->task.uri, leader->task.uri) != 0 ||
			strcmp(call->task.options, leader->task.options) != 0 ||
			strcmp(call->task.target_uri, leader->task.target_uri) != 0 ||
			strcmp(call->task.target_options, leader->task.target_options) != 0)
			continue;
		riders[n] = call;
		tasks[n++] = call->task;
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

	return call->provider->build(tasks, n, credential, &call->exchange.request, failed) &&
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
	if (call->provider == NULL)
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
	set_first_task(call);

	if (answer_from_cache(call))
		return;
	if (call->provider && call->request->operation == KMS_UNWRAP &&
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
