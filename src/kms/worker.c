/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker that calls the KMS.
 *
 * One process for the whole server, and the only one that talks to a KMS or
 * reads a KEK.  It is connected to no database: what it has to know comes with
 * the request (kms/queue.c), so it starts with the server, serves standbys as
 * well, and never holds up DROP DATABASE.
 *
 * It keeps up to envelope.kms_connections calls under way at once.  A call is
 * a small machine that one loop moves on whenever its time has come:
 *
 *		ATTEMPT		ask the provider, as soon as the call is due
 *		ANSWER		take the answer
 *		TIMEOUT		the provider has not answered; the attempt has failed
 *
 * What an answer means for a key that is in memory:
 *
 *		ok				stored, for a new TTL
 *		denied			suspect; asked once more, no sooner than
 *						CONFIRM_MS later; denied again, wiped everywhere
 *		unreachable		lives on to the end of TTL and grace
 *		misconfigured	the same: somebody here made a mistake, nobody withdrew
 *		corrupt			lives to the end of its TTL
 *
 * A key that is suspect and whose second answer does not come stays suspect,
 * and is gone after a few seconds.  A key that is not in memory is simply not
 * to be had, whatever the reason.
 *
 * Each unwrapped key is checked against key_check before anybody gets it, so
 * that neither a KMS nor whoever can write tenant_keys can pass one tenant's
 * key off as another's.
 *
 * An error ends the process with code 1; the postmaster starts it again after
 * RESTART_S, and requests wait meanwhile.  Key bytes stand in this process only
 * while an answer is handled, and its memory is left out of core files.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "crypto/derive.h"
#include "keys/cache.h"
#include "kms/provider.h"
#include "kms/queue.h"
#include "kms/retry.h"
#include "kms/stats.h"
#include "kms/worker.h"
#include "settings.h"

#define RESTART_S		1
#define TICK_MS			1000
#define IDLE_MS			3600000L

/* The second call after a denial comes no sooner than this */
#define CONFIRM_MS		1000

typedef enum CallStep
{
	CALL_FREE,
	CALL_ATTEMPT,
	CALL_ANSWER,
	CALL_TIMEOUT
} CallStep;

typedef struct Call
{
	CallStep	step;
	int64		due;			/* when to take the step, boottime_ms() */
	int			slot;			/* of the queue */
	const KmsRequest *request;	/* of the slot */
	const KmsProvider *provider;
	int			attempts;		/* made so far */
	bool		confirming;		/* was denied once */
	int64		begun_at;
	instr_time	attempted_at;
} Call;

static Call *calls = NULL;		/* envelope_kms_connections */

/* For one answer at a time; wiped after each */
static KmsAnswer answer;
static KmsReply reply;

/* Called from _PG_init while the postmaster preloads the library. */
void
worker_register(void)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, "envelope KMS worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "envelope KMS worker", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "envelope", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "envelope_worker_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = RESTART_S;
	RegisterBackgroundWorker(&worker);
}

static void
detach_from_queue(int code, Datum arg)
{
	kms_queue_detach();
}

/* Keep only what can do no harm in a log or a terminal. */
static void
clean_detail(char *detail)
{
	for (char *at = detail; *at; at++)
	{
		if (*at < 0x20 || *at > 0x7e)
			*at = '?';
	}
}

static void
answer_failed(KmsOutcome outcome, const char *detail)
{
	secret_wipe(&answer, sizeof(answer));
	answer.outcome = outcome;
	strlcpy(answer.detail, detail, sizeof(answer.detail));
}

/*
 * Answer a request to check a KEK: unwrap what it has generated, and compare.
 */
static void
answer_check(const Call *call)
{
	static KmsRequest request;
	Dek			generated;

	request = *call->request;
	request.operation = KMS_GENERATE;
	call->provider->answer(&request, &answer);
	if (answer.outcome == KMS_OK)
	{
		generated = answer.dek;
		request.operation = KMS_UNWRAP;
		request.wrapped_len = answer.wrapped_len;
		memcpy(request.wrapped, answer.wrapped, answer.wrapped_len);
		secret_wipe(&answer, sizeof(answer));
		call->provider->answer(&request, &answer);
		if (answer.outcome == KMS_OK &&
			memcmp(&generated, &answer.dek, sizeof(generated)) != 0)
			answer_failed(KMS_CORRUPT, "unwrapped another key than was generated");
		secret_wipe(&generated, sizeof(generated));
	}
	secret_wipe(&request, sizeof(request));
}

/* Is what was unwrapped the key that was asked for? */
static bool
check_unwrapped(const KmsRequest *request)
{
	uint8		check[KEY_CHECK_BYTES];

	if (!dek_check(&answer.dek, request->key_id, request->tenant,
				   request->purpose, check))
	{
		answer_failed(KMS_UNREACHABLE, "OpenSSL failed");
		return false;
	}
	if (!key_checks_equal(check, request->key_check))
	{
		answer_failed(KMS_CORRUPT, "wrong key: what was unwrapped is not this tenant's key");
		return false;
	}
	return true;
}

/*
 * Answer a request to re-wrap: unwrap, wrap for the target, unwrap what was
 * wrapped, and see each time that it is the key that was asked for.  *kek
 * becomes the one that was asked last.
 */
static void
answer_rewrap(const Call *call, const char **kek)
{
	static KmsRequest request;
	const KmsProvider *target = kms_provider_for(call->request->target_uri);

	request = *call->request;
	request.operation = KMS_UNWRAP;
	call->provider->answer(&request, &answer);
	if (answer.outcome != KMS_OK || !check_unwrapped(&request))
		return;

	*kek = call->request->target_kek;
	if (target == NULL)
	{
		answer_failed(KMS_MISCONFIGURED, "no provider knows the URI of this KEK");
		return;
	}
	strlcpy(request.kek, request.target_kek, sizeof(request.kek));
	strlcpy(request.uri, request.target_uri, sizeof(request.uri));
	strlcpy(request.options, request.target_options, sizeof(request.options));
	request.operation = KMS_WRAP;
	target->answer(&request, &answer);
	if (answer.outcome != KMS_OK)
		return;

	request.operation = KMS_UNWRAP;
	request.wrapped_len = answer.wrapped_len;
	memcpy(request.wrapped, answer.wrapped, answer.wrapped_len);
	strlcpy(reply.kek_version, answer.kek_version, sizeof(reply.kek_version));
	secret_wipe(&answer, sizeof(answer));
	target->answer(&request, &answer);
	if (answer.outcome != KMS_OK || !check_unwrapped(&request))
		return;
	reply.wrapped_len = request.wrapped_len;
	memcpy(reply.wrapped, request.wrapped, request.wrapped_len);
}

/*
 * Make the reply to a key that was unwrapped, and store the key.  False with a
 * failed answer where it is not the key that was asked for.
 */
static bool
accept_unwrapped(const KmsRequest *request)
{
	DekId		id = {request->database, request->key_id};

	if (!check_unwrapped(request))
		return false;
	if (!dek_derive(&answer.dek, request->purpose, &reply.subkeys))
	{
		answer_failed(KMS_UNREACHABLE, "OpenSSL failed");
		return false;
	}
	(void) dek_cache_store(&id, request->tenant, request->purpose,
						   &reply.subkeys, request->generation);
	return true;
}

/* Make the reply to a key that was generated. */
static bool
accept_generated(const KmsRequest *request)
{
	if (answer.wrapped_len <= 0 || answer.wrapped_len > WRAPPED_DEK_MAX ||
		!dek_check(&answer.dek, request->key_id, request->tenant,
				   request->purpose, reply.key_check))
	{
		answer_failed(KMS_UNREACHABLE, "the KMS gave no key that can be used");
		return false;
	}
	strlcpy(reply.kek_version, answer.kek_version, sizeof(reply.kek_version));
	reply.wrapped_len = answer.wrapped_len;
	memcpy(reply.wrapped, answer.wrapped, answer.wrapped_len);
	return true;
}

/* Take an answer that is ok for what it is; false where it is not. */
static bool
accept_answer(const KmsRequest *request)
{
	switch (request->operation)
	{
		case KMS_UNWRAP:
			return accept_unwrapped(request);
		case KMS_GENERATE:
			return accept_generated(request);
		case KMS_REWRAP:
		case KMS_CHECK:
			return true;
		case KMS_WRAP:
			break;
	}
	return false;
}

/* Count the answer of a KEK, and log it where the KEK has changed its ways. */
static void
note_answer(const Call *call, const char *kek)
{
	const KmsRequest *request = call->request;
	instr_time	latency;

	INSTR_TIME_SET_CURRENT(latency);
	INSTR_TIME_SUBTRACT(latency, call->attempted_at);
	clean_detail(answer.detail);
	if (!kms_stats_count_call(request, kek, answer.outcome, answer.detail,
							  INSTR_TIME_GET_MILLISEC(latency)))
		return;
	if (answer.outcome == KMS_OK)
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
						kms_outcome_name(answer.outcome)),
				 errdetail("Asked to %s: %s",
						   kms_operation_name(request->operation), answer.detail)));
}

/* Give the reply to all who wait, and be free for another call. */
static void
finish_call(Call *call)
{
	reply.outcome = answer.outcome;
	strlcpy(reply.detail, answer.detail, sizeof(reply.detail));
	kms_queue_finish(call->slot, &reply);
	call->step = CALL_FREE;
}

/* Try again later, if that makes sense. */
static bool
retry_call(Call *call)
{
	const RetryPolicy *policy = retry_policy(call->request->priority);
	int64		deadline = Min(kms_queue_deadline(call->slot),
							   call->begun_at + policy->whole_ms);

	call->due = boottime_ms() + retry_backoff_ms(policy, call->attempts);
	if (call->attempts >= policy->attempts || call->due >= deadline ||
		!kms_queue_is_wanted(call->slot))
		return false;
	call->step = CALL_ATTEMPT;
	return true;
}

/* Act on an answer that is not ok. */
static void
take_failure(Call *call)
{
	const KmsRequest *request = call->request;
	DekId		id = {request->database, request->key_id};

	if (answer.outcome == KMS_UNREACHABLE && retry_call(call))
		return;

	if (request->operation == KMS_UNWRAP)
	{
		bool		evicted = request->generation !=
			dek_cache_generation(request->database, request->tenant);

		switch (answer.outcome)
		{
			case KMS_DENIED:
				if (!call->confirming &&
					dek_cache_judge(&id, request->tenant, DEK_DENIED_ONCE))
				{
					call->confirming = true;
					call->attempts = 0;
					call->step = CALL_ATTEMPT;
					call->due = boottime_ms() + CONFIRM_MS;
					return;
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
		/* Who was evicted in SQL wants to be asked for anew. */
		if (!evicted)
			denials_note(request,
						 dek_cache_generation(request->database, request->tenant),
						 answer.outcome, answer.detail);
	}
	finish_call(call);
}

/* Have the provider answer, and act on it. */
static void
take_answer(Call *call)
{
	const char *kek = call->request->kek;

	if (call->step == CALL_TIMEOUT)
		answer_failed(KMS_UNREACHABLE, "the KMS did not answer in time");
	else if (call->request->operation == KMS_CHECK)
		answer_check(call);
	else if (call->request->operation == KMS_REWRAP)
		answer_rewrap(call, &kek);
	else
		call->provider->answer(call->request, &answer);

	if (answer.outcome == KMS_OK && accept_answer(call->request))
	{
		note_answer(call, kek);
		if (call->request->operation == KMS_UNWRAP)
			denials_forget(call->request);
		/* Somebody has mended something, and wants to see whether it works. */
		if (call->request->operation == KMS_CHECK)
			denials_forget_kek(call->request->database, kek, true);
		finish_call(call);
	}
	else
	{
		note_answer(call, kek);
		take_failure(call);
	}
	secret_wipe(&answer, sizeof(answer));
	secret_wipe(&reply, sizeof(reply));
}

/* Ask the provider. */
static void
attempt_call(Call *call)
{
	const RetryPolicy *policy = retry_policy(call->request->priority);
	int			delay = call->provider->delay_ms(call->request);

	call->attempts++;
	INSTR_TIME_SET_CURRENT(call->attempted_at);
	call->step = CALL_ANSWER;
	if (delay < 0 || delay > policy->attempt_ms)
	{
		call->step = CALL_TIMEOUT;
		delay = policy->attempt_ms;
	}
	call->due = boottime_ms() + delay;
}

/* Begin to work on a request that was claimed. */
static void
begin_call(Call *call, int slot)
{
	memset(call, 0, sizeof(*call));
	call->slot = slot;
	call->request = kms_queue_request(slot);
	call->provider = kms_provider_for(call->request->uri);
	call->begun_at = call->due = boottime_ms();
	call->step = CALL_ATTEMPT;

	if (call->provider == NULL)
		answer_failed(KMS_MISCONFIGURED, "no provider knows the URI of this KEK");
	else if (call->request->operation != KMS_UNWRAP ||
			 !denials_recall(call->request, &answer.outcome, answer.detail))
		return;
	finish_call(call);
	secret_wipe(&answer, sizeof(answer));
	secret_wipe(&reply, sizeof(reply));
}

/*
 * Begin to work on the next request that may run; false if there is none.
 */
static bool
claim_request(Call *call)
{
	int			slot = kms_queue_claim();

	if (slot < 0)
		return false;
	begin_call(call, slot);
	return true;
}

/*
 * Move on every call whose time has come.  A call that ends takes the next
 * request at once, so that those which began together drift apart.
 */
static void
advance_calls(void)
{
	bool		queued = true;

	for (int i = 0; i < envelope_kms_connections; i++)
	{
		Call	   *call = &calls[i];

		for (;;)
		{
			if (call->step == CALL_FREE)
			{
				queued = queued && claim_request(call);
				if (!queued)
					break;
			}
			else if (boottime_ms() < call->due)
				break;
			else if (call->step == CALL_ATTEMPT)
				attempt_call(call);
			else
			{
				take_answer(call);
				queued = queued || call->step == CALL_FREE;
			}
		}
	}
}

/* How long to sleep, in ms, if nobody asks before. */
static long
time_to_sleep(int64 next_tick)
{
	int64		now = boottime_ms();
	int64		next = dek_cache_needs_tick() ? next_tick : PG_INT64_MAX;

	for (int i = 0; i < envelope_kms_connections; i++)
	{
		if (calls[i].step != CALL_FREE)
			next = Min(next, calls[i].due);
	}
	return (long) Min(Max(next - now, 0), IDLE_MS);
}

static void
reload_settings(void)
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	denials_forget_all();
}

/*
 * The process's main function.
 */
void
envelope_worker_main(Datum arg)
{
	uint32		wait_event;
	int64		next_tick = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	process_keep_out_of_core_files();
	wait_event = wait_event_named("EnvelopeWorkerMain");
	calls = MemoryContextAllocZero(TopMemoryContext,
								   envelope_kms_connections * sizeof(Call));
	before_shmem_exit(detach_from_queue, (Datum) 0);
	kms_queue_attach(MyLatch);

	for (;;)
	{
		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
			proc_exit(1);		/* to be started again unless the server ends */
		if (ConfigReloadPending)
			reload_settings();

		advance_calls();
		if (dek_cache_needs_tick() && boottime_ms() >= next_tick)
		{
			dek_cache_tick();
			next_tick = boottime_ms() + TICK_MS;
		}

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 time_to_sleep(next_tick), wait_event);
	}
}
