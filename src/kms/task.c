/*-------------------------------------------------------------------------
 *
 * task.c
 *	  What is asked of KMSs for a request, one thing after the other.
 *
 *		unwrap, generate	one task; a KMS that draws no keys wraps what we draw
 *		check				generate, unwrap, compare; ask what else is allowed
 *		rewrap				unwrap and wrap for the target, or re-wrap inside
 *							the KMS where it can; then unwrap what came of it.
 *							Where wrapping would make a KEK that is not there,
 *							a data key is generated first, and dropped.
 *
 * A re-wrapped key is passed on only when its new wrapping was unwrapped and
 * found to be the same key.  No data key leaves the worker for it.
 *
 * When and how a task is asked is the business of kms/call.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "crypto/derive.h"
#include "kms/accept.h"
#include "kms/task.h"

/* Ask the source's KEK, or that of the target, for something from now on. */
static void
set_task(Tasks *tasks, KmsOperation operation, bool target)
{
	const KmsRequest *request = tasks->request;
	KmsTask    *task = &tasks->task;
	bool		made = tasks->made.wrapped_len > 0;

	memset(task, 0, sizeof(*task));
	task->operation = operation;
	task->kek = target ? request->target_kek : request->kek;
	task->uri = target ? request->target_uri : request->uri;
	task->options = target ? request->target_options : request->options;
	task->tenant = request->tenant;
	task->key_id = request->key_id;
	task->dek = &tasks->made.dek;
	task->kek_version = made ? tasks->made.kek_version : request->kek_version;
	task->wrapped = made ? tasks->made.wrapped : request->wrapped;
	task->wrapped_len = made ? tasks->made.wrapped_len : request->wrapped_len;
	task->target_uri = request->target_uri;
	task->target_options = request->target_options;
	tasks->provider = kms_provider_for(task->uri);
}

/*
 * Ask for a new key.  Where the KMS draws none we do, and ask to wrap it.
 */
static void
set_generating_task(Tasks *tasks)
{
	set_task(tasks, KMS_GENERATE, false);
	if (tasks->provider && tasks->provider->only_wraps)
	{
		set_task(tasks, KMS_WRAP, false);
		tasks->drawn = dek_generate(&tasks->made.dek);
	}
}

/* A new key was generated, or wrapped: is it there? */
static bool
take_generated(const Tasks *tasks, KmsAnswer *answer)
{
	if (tasks->task.operation != KMS_WRAP)
		return true;
	if (tasks->drawn)
	{
		answer->dek = tasks->made.dek;
		return true;
	}
	answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "could not draw a data key");
	return false;
}

/*
 * Begin with the first task of a request, which outlives them; *tasks is zero,
 * and stays where it is.
 */
void
tasks_begin(Tasks *tasks, const KmsRequest *request)
{
	tasks->request = request;
	switch (tasks->request->operation)
	{
		case KMS_GENERATE:
		case KMS_CHECK:
			set_generating_task(tasks);
			break;
		case KMS_REWRAP:
			set_task(tasks, KMS_UNWRAP, false);
			if (tasks->provider && tasks->provider->can_rewrap &&
				tasks->provider == kms_provider_for(tasks->request->target_uri) &&
				tasks->provider->can_rewrap(&tasks->task))
				set_task(tasks, KMS_REWRAP, false);
			break;
		default:
			set_task(tasks, tasks->request->operation, false);
			break;
	}
}

/* Keep what a task has wrapped, to unwrap it. */
static bool
keep_wrapped(Tasks *tasks, KmsAnswer *answer)
{
	Made	   *made = &tasks->made;

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
bool
tasks_next(Tasks *tasks, KmsAnswer *answer)
{
	KmsOperation asked = tasks->task.operation;

	switch (tasks->request->operation)
	{
		case KMS_CHECK:
			if (asked == KMS_CHECK)
				return false;	/* the last one */
			if (asked == KMS_UNWRAP)
			{
				if (memcmp(&tasks->made.dek, &answer->dek, sizeof(Dek)) != 0)
				{
					answer_set(answer, KMS_CORRUPT, HINT_NONE,
							   "unwrapped another key than was generated");
					return false;
				}
				if (!tasks->provider->tells_rights)
					return false;
				set_task(tasks, KMS_CHECK, false);
				return true;
			}
			if (!take_generated(tasks, answer) || !keep_wrapped(tasks, answer))
				return false;
			set_task(tasks, KMS_UNWRAP, false);
			return true;
		case KMS_REWRAP:
			if (asked == KMS_UNWRAP && tasks->made.wrapped_len > 0)
				return false;	/* the last one */
			if (asked == KMS_UNWRAP)
			{
				if (!accept_is_key(tasks->request, answer))
					return false;
				tasks->made.dek = answer->dek;
				set_task(tasks, KMS_WRAP, true);
				if (tasks->provider && tasks->provider->wrap_creates)
					set_task(tasks, KMS_GENERATE, true);
				return true;
			}
			if (asked == KMS_GENERATE)
			{
				/* The target is there; its key is not needed. */
				set_task(tasks, KMS_WRAP, true);
				return true;
			}
			if (!keep_wrapped(tasks, answer))
				return false;
			set_task(tasks, KMS_UNWRAP, true);
			return true;
		default:
			return false;
	}
}

/*
 * All tasks were answered, and this is the last answer: make the reply.  False
 * where there is none, the answer having been made a failed one if need be.
 */
bool
tasks_accept(const Tasks *tasks, KmsAnswer *answer, KmsReply *reply)
{
	const KmsRequest *request = tasks->request;

	if (answer->outcome != KMS_OK)
		return false;
	switch (request->operation)
	{
		case KMS_UNWRAP:
			return accept_unwrapped(request, answer, reply);
		case KMS_GENERATE:
			return take_generated(tasks, answer) &&
				accept_generated(request, answer, reply);
		case KMS_REWRAP:
			if (!accept_is_key(request, answer))
				return false;
			strlcpy(reply->kek_version, tasks->made.kek_version, sizeof(reply->kek_version));
			reply->wrapped_len = tasks->made.wrapped_len;
			memcpy(reply->wrapped, tasks->made.wrapped, tasks->made.wrapped_len);
			return true;
		case KMS_CHECK:
			return true;
		case KMS_WRAP:
			break;
	}
	return false;
}

/* Wipe the key that they may hold. */
void
tasks_wipe(Tasks *tasks)
{
	secret_wipe(&tasks->made.dek, sizeof(tasks->made.dek));
}
