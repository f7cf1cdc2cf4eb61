/*-------------------------------------------------------------------------
 *
 * verdict.c
 *	  What an answer means: for the call, and for the key that is in memory.
 *
 * A call is tried again, with another credential perhaps, goes on with its next
 * task, or is finished.
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

#include "compat.h"
#include "keys/cache.h"
#include "kms/calllog.h"
#include "kms/queue.h"
#include "kms/retry.h"
#include "kms/stats.h"
#include "kms/verdict.h"
#include "settings.h"

/* The second call after a denial comes no sooner than this */
#define CONFIRM_MS		1000
/* So much before its deadline a caller gets what there is to say. */
#define MARGIN_MS		50

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
void
call_use_credential(Call *call, CredentialEntry *entry)
{
	if (entry)
		credential_hold(entry);
	if (call->credential)
		credential_release(call->credential);
	call->credential = entry;
}

/*
 * Give the reply, which is wiped then, to all who wait, and be free for another
 * call.
 */
void
call_finish(Call *call, const KmsAnswer *answer, KmsReply *reply)
{
	reply->outcome = answer->outcome;
	strlcpy(reply->detail, answer->detail, sizeof(reply->detail));
	kms_queue_finish(call->slot, reply);
	secret_wipe(reply, sizeof(*reply));
	tasks_wipe(&call->tasks);
	call_use_credential(call, NULL);
	call->step = CALL_FREE;
}

/* Until when a call makes sense, boottime_ms() */
int64
call_deadline(const Call *call)
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
	if (call->due >= call_deadline(call))
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
take_failure(Call *call, KmsAnswer *answer, KmsReply *reply)
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
	call_finish(call, answer, reply);
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

/* Act on the answer to a call's task; reply is made from it where that was the last. */
void
call_take_answer(Call *call, KmsAnswer *answer, KmsReply *reply)
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
	if (tasks_accept(&call->tasks, answer, reply))
	{
		note_answer(call, answer);
		if (request->operation == KMS_UNWRAP)
			denials_forget(request);
		/* Somebody has mended something, and wants to see whether it works. */
		if (request->operation == KMS_CHECK)
			denials_forget_kek(request->database, call->tasks.task.kek, true);
		call_finish(call, answer, reply);
	}
	else
	{
		note_answer(call, answer);
		take_failure(call, answer, reply);
	}
}
