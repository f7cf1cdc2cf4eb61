/*-------------------------------------------------------------------------
 *
 * ask.c
 *	  How backends ask the worker, and wait for its answers.
 *
 * A backend enters a slot of the queue (kms/queue.c) for each thing that it
 * asks, and leaves it with the reply, when it waits no longer, or when it is
 * cancelled: on ERROR and on FATAL alike, by PG_ENSURE_ERROR_CLEANUP.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"

#include "compat.h"
#include "errors.h"
#include "kms/ask.h"
#include "kms/queue.h"
#include "kms/stats.h"
#include "settings.h"
#include "shmem.h"

/* How many requests one backend has under way in kms_call_many */
#define BULK_WINDOW				128

/* How long a refresh may take */
#define REFRESH_DEADLINE_MS		30000

#define NO_FREE_SLOT	"all slots of the queue were taken until envelope.kms_timeout was over"

/* The slots whose waiter this backend is, oldest first */
static int	held[BULK_WINDOW];
static int	nheld = 0;

/* Enter a slot, if one can be had now. */
static bool
enter_slot(const KmsRequest *request, int64 deadline)
{
	int			slot = kms_slot_enter(request, deadline, 1);

	if (slot < 0)
		return false;
	held[nheld++] = slot;
	return true;
}

/* Stop waiting for the oldest slot that this backend holds. */
static void
leave_oldest_slot(void)
{
	int			slot = held[0];

	nheld--;
	memmove(&held[0], &held[1], nheld * sizeof(held[0]));
	kms_slot_leave(slot);
}

/* Cleanup on ERROR and FATAL */
static void
leave_all_slots(int code, Datum arg)
{
	while (nheld > 0)
		leave_oldest_slot();
}

/*
 * Enter a slot, waiting for a free one until the deadline.
 */
static bool
enter_slot_wait(const KmsRequest *request, int64 deadline)
{
	static uint32 wait_event = 0;
	int64		remaining;
	bool		entered;

	if (wait_event == 0)
		wait_event = wait_event_named("EnvelopeKmsSlot");

	ConditionVariablePrepareToSleep(kms_slot_freed());
	while (!(entered = enter_slot(request, deadline)) &&
		   (remaining = deadline - boottime_ms()) > 0)
		(void) ConditionVariableTimedSleep(kms_slot_freed(), remaining, wait_event);
	ConditionVariableCancelSleep();
	return entered;
}

/* Say in *reply that nobody answered. */
static void
reply_no_answer(KmsReply *reply, const char *why)
{
	secret_wipe(reply, sizeof(*reply));
	reply->outcome = KMS_UNREACHABLE;
	strlcpy(reply->detail, why, sizeof(reply->detail));
}

/*
 * Wait for the oldest slot that this backend holds, copy its reply, leave it.
 */
static void
await_oldest_slot(KmsReply *reply, int64 deadline)
{
	static uint32 wait_event = 0;
	int			slot = held[0];
	bool		done;

	if (wait_event == 0)
		wait_event = wait_event_named("EnvelopeKmsReply");

	ConditionVariablePrepareToSleep(kms_slot_done(slot));
	for (;;)
	{
		int64		remaining = deadline - boottime_ms();

		done = kms_slot_reply(slot, reply);
		if (done || remaining <= 0)
			break;
		(void) ConditionVariableTimedSleep(kms_slot_done(slot), remaining, wait_event);
	}
	ConditionVariableCancelSleep();
	leave_oldest_slot();

	if (!done && !kms_queue_had_worker())
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_NOT_RUNNING),
				 errmsg("the envelope worker is not running"),
				 errdetail("It has not started since the server did."),
				 errhint("Raise max_worker_processes and restart the server; the server log says more.")));
	if (!done)
		reply_no_answer(reply, "the KMS did not answer in time");
}

/*
 * What both ways of asking begin with.  Only a trigger that somebody has put on
 * the key tables could ask while its session asks.
 */
static void
begin_calls(void)
{
	shmem_require();
	if (nheld > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a KMS cannot be asked while keys are being made")));
}

/*
 * Ask, and wait for the reply until envelope.kms_timeout is over.  The caller
 * wipes *reply.  Throws when cancelled, and VE008 where no worker ever ran; a
 * KMS that cannot be reached is an outcome.  No lock may be held.
 */
void
kms_call(const KmsRequest *request, KmsReply *reply)
{
	int64		deadline = boottime_ms() + envelope_kms_timeout;

	begin_calls();
	PG_ENSURE_ERROR_CLEANUP(leave_all_slots, 0);
	{
		kms_stats_count_wait(request);
		if (enter_slot_wait(request, deadline))
		{
			kms_queue_wake_worker();
			await_oldest_slot(reply, deadline);
		}
		else
			reply_no_answer(reply, NO_FREE_SLOT);
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave_all_slots, 0);
}

/*
 * Ask many things, up to BULK_WINDOW at once.
 *
 * fill is called for each item in turn to fill in its request (zeroed, its
 * priority set), and says whether there is anything to ask; done is called with
 * the reply of each that was asked, in the same order.  Both may throw.  Each
 * item has envelope.kms_timeout from the moment it was asked.
 */
void
kms_call_many(int nitems, kms_fill_fn fill, kms_done_fn done, void *arg)
{
	KmsRequest *request = palloc(sizeof(KmsRequest));
	KmsReply   *reply = palloc(sizeof(KmsReply));
	int			items[BULK_WINDOW] = {0};	/* of held[] */
	int64		deadlines[BULK_WINDOW] = {0};
	int			next = 0;
	bool		filled = false;

	begin_calls();
	PG_ENSURE_ERROR_CLEANUP(leave_all_slots, 0);
	{
		while (next < nitems || nheld > 0)
		{
			bool		asked = false;
			int64		deadline = boottime_ms() + envelope_kms_timeout;

			CHECK_FOR_INTERRUPTS();
			while (next < nitems && !filled)
			{
				memset(request, 0, sizeof(*request));
				request->priority = KMS_BULK;
				filled = fill(next, request, arg);
				if (!filled)
					next++;
			}

			/* Wait for a slot only if there is no reply to wait for. */
			if (filled && nheld == 0)
			{
				asked = enter_slot_wait(request, deadline);
				if (!asked)
				{
					reply_no_answer(reply, NO_FREE_SLOT);
					done(next++, reply, arg);
					filled = false;
					continue;
				}
			}
			else if (filled && nheld < BULK_WINDOW)
				asked = enter_slot(request, deadline);

			if (asked)
			{
				kms_queue_wake_worker();
				items[nheld - 1] = next++;
				deadlines[nheld - 1] = deadline;
				filled = false;
			}
			else if (nheld > 0)
			{
				int			item = items[0];

				await_oldest_slot(reply, deadlines[0]);
				memmove(&items[0], &items[1], nheld * sizeof(items[0]));
				memmove(&deadlines[0], &deadlines[1], nheld * sizeof(deadlines[0]));
				done(item, reply, arg);
				secret_wipe(reply, sizeof(*reply));
			}
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave_all_slots, 0);

	pfree(reply);
	pfree(request);
}

/*
 * Ask for a key to be refreshed, without waiting.  Where no slot is free
 * nothing is asked: a later user of the key will.
 */
void
kms_refresh(const KmsRequest *request)
{
	Assert(request->priority == KMS_REFRESH);
	if (kms_slot_enter(request, boottime_ms() + REFRESH_DEADLINE_MS, 0) >= 0)
		kms_queue_wake_worker();
}
