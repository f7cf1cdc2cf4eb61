/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  How backends ask the worker to call a KMS, and wait for the answer.
 *
 * A request is a slot of a fixed array in the mapping of shmem.c.  Its life:
 *
 *	1. A backend that needs a key first looks for a slot in which the same key
 *	   is asked for already, at the same generation, and joins its waiters: so
 *	   a cold key that a thousand sessions want costs one call.  Else it fills
 *	   a free slot, QUEUED, sets the worker's latch, and sleeps on the slot's
 *	   condition variable until its deadline.  It can be cancelled at any time.
 *	2. The worker claims the slot, RUNNING, the most urgent first, and from
 *	   then on owns it.  If all who waited give up before that, the slot is
 *	   free at once; afterwards the worker finishes the call all the same, since
 *	   the key goes to the cache.
 *	3. The worker copies the reply into the slot, DONE, and wakes the waiters.
 *	   Each copies it out.  The last one to leave wipes the slot, FREE, and
 *	   wakes who waits for a free one.
 *
 * A refresh has no waiters: its slot is freed by the worker.  If the worker
 * dies, its successor queues again what was running; a caller then waits on,
 * to its deadline.
 *
 * One KEK whose KMS hangs must not starve the others, so that a request takes
 * a slot only while its KEK has fewer slots than FOREGROUND_SHARE (for bulk
 * work BULK_SHARE) times those that are free; and the worker, which can run
 * somewhat more calls than envelope.kms_connections (kms_calls_wanted), runs
 * at most so many of one KEK, and only while they are fewer than RUNNING_SHARE
 * times the calls that could still be started.  So a KEK that is alone has all
 * connections, and another one finds some at once.  Many KEKs may be at one
 * server, which hangs as a whole: together they have a bit more than one alone,
 * SERVER_SHARE, and never the last call that could be started.  It takes several
 * KMSs that hang at once to hold up the others.
 *
 * Slots are looked through for every request, so that what is asked for and
 * answered, some 20 kB, lies apart from them.
 *
 * Locking
 *
 * The LWLock ENVELOPE_LOCK_QUEUE guards everything but the request of a
 * RUNNING slot, which the worker reads and nobody writes but for its priority,
 * a word that may rise at any moment.  Latches are set and
 * condition variables broadcast after it is released.  A backend leaves its
 * slots on ERROR and on FATAL alike, by PG_ENSURE_ERROR_CLEANUP.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "errors.h"
#include "kms/provider.h"
#include "kms/queue.h"
#include "kms/stats.h"
#include "settings.h"
#include "shmem.h"

/* Slots, as a multiple of the calls that can run at once, and at least */
#define SLOTS_PER_CONNECTION	4
#define MIN_SLOTS				8

#define FOREGROUND_SHARE		3
#define BULK_SHARE				1
#define RUNNING_SHARE			7
#define SERVER_SHARE			15

/* How many requests one backend has under way in kms_call_many */
#define BULK_WINDOW				128

/* How long a refresh may take */
#define REFRESH_DEADLINE_MS		30000

#define NO_FREE_SLOT	"all slots of the queue were taken until envelope.kms_timeout was over"

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_QUEUED,
	SLOT_RUNNING,
	SLOT_DONE
} SlotState;

/* What is looked at of all slots */
typedef struct KmsSlot
{
	SlotState	state;
	int			waiters;
	uint64		ticket;			/* order of arrival */
	int64		deadline;		/* the latest of the waiters', boottime_ms() */
	ConditionVariable done;

	/* Of the request */
	KmsOperation operation;
	KmsPriority priority;		/* the most urgent of the waiters' */
	Oid			database;
	int64		key_id;
	uint64		generation;

	/* Hashes of these; where two are equal by chance they share a share. */
	uint64		kek;			/* and its database */
	uint64		server;
} KmsSlot;

/* What goes through a slot */
typedef struct KmsMessage
{
	KmsRequest	request;
	KmsReply	reply;			/* when DONE */
} KmsMessage;

typedef struct KmsQueue
{
	int			nslots;
	int			ncalls;			/* that the worker can run at once */
	uint64		next_ticket;
	Latch	   *worker_latch;	/* NULL while there is no worker */
	int			worker_pid;
	bool		worker_was_seen;	/* since the server started */
	ConditionVariable slot_freed;
	KmsMessage *messages;		/* one for each slot */
	KmsSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} KmsQueue;

static KmsQueue *queue = NULL;

/* The slots whose waiter this backend is, oldest first */
static int	held[BULK_WINDOW];
static int	nheld = 0;

static LWLock *
queue_lock(void)
{
	return shmem_lock(ENVELOPE_LOCK_QUEUE);
}

static int
slot_count(void)
{
	return Max(MIN_SLOTS, SLOTS_PER_CONNECTION * envelope_kms_connections);
}

/* Where the messages begin, behind the slots */
static Size
messages_offset(void)
{
	return MAXALIGN(add_size(offsetof(KmsQueue, slots),
							 mul_size(slot_count(), sizeof(KmsSlot))));
}

Size
kms_queue_shmem_size(void)
{
	return add_size(messages_offset(), mul_size(slot_count(), sizeof(KmsMessage)));
}

/*
 * Lay the queue out in area, which is zero.
 */
void
kms_queue_shmem_init(void *area)
{
	queue = area;
	queue->messages = (KmsMessage *) ((char *) area + messages_offset());
	queue->nslots = slot_count();
	ConditionVariableInit(&queue->slot_freed);
	for (int i = 0; i < queue->nslots; i++)
		ConditionVariableInit(&queue->slots[i].done);
}

/* The process id of the worker; 0 while there is none. */
int
kms_worker_pid(void)
{
	int			pid;

	LWLockAcquire(queue_lock(), LW_SHARED);
	pid = queue->worker_pid;
	LWLockRelease(queue_lock());
	return pid;
}

/* How many requests are queued or running, or wait to be read by who asked */
int
kms_request_count(void)
{
	int			count = 0;

	LWLockAcquire(queue_lock(), LW_SHARED);
	for (int i = 0; i < queue->nslots; i++)
		count += queue->slots[i].state != SLOT_FREE;
	LWLockRelease(queue_lock());
	return count;
}

/* Wake the worker, if there is one; no lock is held. */
static void
wake_worker(void)
{
	Latch	   *latch;

	LWLockAcquire(queue_lock(), LW_SHARED);
	latch = queue->worker_latch;
	LWLockRelease(queue_lock());
	if (latch)
		SetLatch(latch);
}

static KmsMessage *
message_of(const KmsSlot *slot)
{
	return &queue->messages[slot - queue->slots];
}

/* Wipe a slot and free it; the lock is held exclusively. */
static void
free_slot(KmsSlot *slot)
{
	KmsMessage *message = message_of(slot);

	secret_wipe(&message->request, sizeof(message->request));
	secret_wipe(&message->reply, sizeof(message->reply));
	slot->state = SLOT_FREE;
	slot->waiters = 0;
}

/*
 * For the log of calls: whose session asks, and in which database.  They are
 * looked up once, before any lock is held.
 */
static void
name_caller(char *role, char *database)
{
	static Oid	named = InvalidOid;
	static NameData role_name;
	static NameData database_name;

	role[0] = database[0] = '\0';
	if (!envelope_log_kms_calls || !IsTransactionState())
		return;
	if (named != GetSessionUserId())
	{
		char	   *name = GetUserNameFromId(GetSessionUserId(), true);

		namestrcpy(&role_name, name ? name : "");
		name = get_database_name(MyDatabaseId);
		namestrcpy(&database_name, name ? name : "");
		named = GetSessionUserId();
	}
	strlcpy(role, NameStr(role_name), NAMEDATALEN);
	strlcpy(database, NameStr(database_name), NAMEDATALEN);
}

/* Say in a slot what a request, which it may not hold yet, is about. */
static void
describe(KmsSlot *slot, const KmsRequest *request)
{
	slot->operation = request->operation;
	slot->priority = request->priority;
	slot->database = request->database;
	slot->key_id = request->key_id;
	slot->generation = request->generation;
	slot->kek = hash_bytes_extended((const unsigned char *) request->kek,
									strlen(request->kek), request->database);
	slot->server = hash_bytes_extended((const unsigned char *) request->uri,
									   strnlen(request->uri, kms_uri_service_len(request->uri)), 0);
}

/* Find a slot in which the same is asked for; the lock is held. */
static KmsSlot *
find_same(const KmsSlot *wanted, const char *tenant)
{
	if (wanted->operation != KMS_UNWRAP)
		return NULL;

	for (int i = 0; i < queue->nslots; i++)
	{
		KmsSlot    *slot = &queue->slots[i];

		if (slot->key_id == wanted->key_id &&
			(slot->state == SLOT_QUEUED || slot->state == SLOT_RUNNING) &&
			slot->operation == KMS_UNWRAP &&
			slot->database == wanted->database &&
			slot->generation == wanted->generation &&
			strcmp(message_of(slot)->request.tenant, tenant) == 0)
			return slot;
	}
	return NULL;
}

/*
 * Find a free slot, unless the KEK has its share of slots already; the lock is
 * held.
 */
static KmsSlot *
find_free(const KmsSlot *wanted)
{
	int			share = wanted->priority == KMS_BULK ? BULK_SHARE : FOREGROUND_SHARE;
	int			nfree = 0;
	int			nsame = 0;
	KmsSlot    *found = NULL;

	for (int i = 0; i < queue->nslots; i++)
	{
		KmsSlot    *slot = &queue->slots[i];

		if (slot->state == SLOT_FREE)
		{
			nfree++;
			found = slot;
		}
		else if (slot->kek == wanted->kek)
			nsame++;
	}
	return nsame < share * nfree ? found : NULL;
}

/* Join a slot in which the same is asked for; the lock is held. */
static void
join_slot(KmsSlot *slot, const KmsRequest *request, int64 deadline, int waiters)
{
	slot->waiters += waiters;
	slot->deadline = Max(slot->deadline, deadline);
	slot->priority = Min(slot->priority, request->priority);
	message_of(slot)->request.priority = slot->priority;
}

/*
 * Join a slot that asks for the same, or take a free one.  False where none can
 * be had now.  waiters is 1, or 0 for a refresh, which nobody waits for.
 */
static bool
enter_slot(const KmsRequest *request, int64 deadline, int waiters)
{
	KmsSlot		wanted;
	KmsSlot    *slot;
	char		role[NAMEDATALEN];
	char		database[NAMEDATALEN];

	name_caller(role, database);
	describe(&wanted, request);
	LWLockAcquire(queue_lock(), LW_EXCLUSIVE);
	slot = find_same(&wanted, request->tenant);
	if (slot)
		join_slot(slot, request, deadline, waiters);
	else if ((slot = find_free(&wanted)) != NULL)
	{
		KmsRequest *copy = &message_of(slot)->request;

		describe(slot, request);
		slot->state = SLOT_QUEUED;
		slot->waiters = waiters;
		slot->ticket = queue->next_ticket++;
		slot->deadline = deadline;
		*copy = *request;
		strlcpy(copy->role, role, sizeof(copy->role));
		strlcpy(copy->database_name, database, sizeof(copy->database_name));
	}
	if (slot && waiters > 0)
		held[nheld++] = (int) (slot - queue->slots);
	LWLockRelease(queue_lock());
	return slot != NULL;
}

/*
 * Stop waiting for the oldest slot that this backend holds.
 */
static void
leave_oldest_slot(void)
{
	KmsSlot    *slot = &queue->slots[held[0]];
	bool		freed = false;

	LWLockAcquire(queue_lock(), LW_EXCLUSIVE);
	slot->waiters--;
	if (slot->waiters == 0 &&
		(slot->state == SLOT_DONE ||
		 (slot->state == SLOT_QUEUED && slot->priority != KMS_REFRESH)))
	{
		free_slot(slot);
		freed = true;
	}
	nheld--;
	memmove(&held[0], &held[1], nheld * sizeof(held[0]));
	LWLockRelease(queue_lock());

	if (freed)
		ConditionVariableBroadcast(&queue->slot_freed);
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

	ConditionVariablePrepareToSleep(&queue->slot_freed);
	while (!(entered = enter_slot(request, deadline, 1)) &&
		   (remaining = deadline - boottime_ms()) > 0)
		(void) ConditionVariableTimedSleep(&queue->slot_freed, remaining, wait_event);
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
	KmsSlot    *slot = &queue->slots[held[0]];
	bool		worker_was_seen;
	bool		done;

	if (wait_event == 0)
		wait_event = wait_event_named("EnvelopeKmsReply");

	ConditionVariablePrepareToSleep(&slot->done);
	for (;;)
	{
		int64		remaining = deadline - boottime_ms();

		LWLockAcquire(queue_lock(), LW_SHARED);
		done = slot->state == SLOT_DONE;
		if (done)
			*reply = message_of(slot)->reply;
		worker_was_seen = queue->worker_was_seen;
		LWLockRelease(queue_lock());
		if (done || remaining <= 0)
			break;
		(void) ConditionVariableTimedSleep(&slot->done, remaining, wait_event);
	}
	ConditionVariableCancelSleep();
	leave_oldest_slot();

	if (!done && !worker_was_seen)
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
			wake_worker();
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
				asked = enter_slot(request, deadline, 1);

			if (asked)
			{
				wake_worker();
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
	if (enter_slot(request, boottime_ms() + REFRESH_DEADLINE_MS, 0))
		wake_worker();
}

/*
 * How many calls the worker needs to be able to run at once: so many that a KEK
 * can have envelope.kms_connections, and another one finds some left.
 */
int
kms_calls_wanted(void)
{
	return envelope_kms_connections + envelope_kms_connections / RUNNING_SHARE + 1;
}

/*
 * The worker starts, and can run so many calls at once: take the queue over from
 * a predecessor that died.
 */
void
kms_queue_attach(Latch *latch, int ncalls)
{
	LWLockAcquire(queue_lock(), LW_EXCLUSIVE);
	queue->ncalls = ncalls;
	queue->worker_latch = latch;
	queue->worker_pid = MyProcPid;
	queue->worker_was_seen = true;
	for (int i = 0; i < queue->nslots; i++)
	{
		KmsSlot    *slot = &queue->slots[i];

		if (slot->state != SLOT_RUNNING)
			continue;
		if (slot->waiters > 0)
			slot->state = SLOT_QUEUED;
		else
			free_slot(slot);
	}
	LWLockRelease(queue_lock());
	ConditionVariableBroadcast(&queue->slot_freed);
}

/* The worker ends; requests wait for its successor. */
void
kms_queue_detach(void)
{
	LWLockAcquire(queue_lock(), LW_EXCLUSIVE);
	queue->worker_latch = NULL;
	queue->worker_pid = 0;
	LWLockRelease(queue_lock());
}

/*
 * May one more request of this slot's KEK, and server, run?  The lock is held.
 */
static bool
may_run(const KmsSlot *slot)
{
	int			nfree = queue->ncalls;
	int			nserver = 0;
	int			nsame = 0;

	for (int i = 0; i < queue->nslots; i++)
	{
		const KmsSlot *other = &queue->slots[i];

		if (other->state != SLOT_RUNNING)
			continue;
		nfree--;
		nserver += other->server == slot->server;
		nsame += other->kek == slot->kek;
	}
	return nsame < envelope_kms_connections && nsame < RUNNING_SHARE * nfree &&
		nserver < SERVER_SHARE * nfree && (nserver == 0 || nfree > 1);
}

/*
 * Claim the most urgent request that may run, of these the oldest; -1 if there
 * is none.
 */
int
kms_queue_claim(void)
{
	KmsSlot    *best = NULL;
	const KmsSlot *judged = NULL;
	bool		may = false;

	LWLockAcquire(queue_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < queue->nslots; i++)
	{
		KmsSlot    *slot = &queue->slots[i];

		if (slot->state != SLOT_QUEUED)
			continue;
		if (best != NULL &&
			(slot->priority > best->priority ||
			 (slot->priority == best->priority && slot->ticket > best->ticket)))
			continue;

		/* Many of the same KEK wait in a row: it is judged once. */
		if (judged == NULL || judged->kek != slot->kek || judged->server != slot->server)
		{
			judged = slot;
			may = may_run(slot);
		}
		if (may)
			best = slot;
	}
	if (best)
		best->state = SLOT_RUNNING;
	LWLockRelease(queue_lock());
	return best ? (int) (best - queue->slots) : -1;
}

/* The request of a slot that the worker has claimed */
const KmsRequest *
kms_queue_request(int slot)
{
	return &queue->messages[slot].request;
}

/* Until when somebody waits for a claimed slot; joiners extend it. */
int64
kms_queue_deadline(int slot)
{
	int64		deadline;

	LWLockAcquire(queue_lock(), LW_SHARED);
	deadline = queue->slots[slot].deadline;
	LWLockRelease(queue_lock());
	return deadline;
}

/* Does anybody still wait for a claimed slot, or is it a refresh? */
bool
kms_queue_is_wanted(int slot)
{
	bool		wanted;

	LWLockAcquire(queue_lock(), LW_SHARED);
	wanted = queue->slots[slot].waiters > 0 ||
		queue->slots[slot].priority == KMS_REFRESH;
	LWLockRelease(queue_lock());
	return wanted;
}

/*
 * Give the reply to all who wait.
 */
void
kms_queue_finish(int index, const KmsReply *reply)
{
	KmsSlot    *slot = &queue->slots[index];
	bool		freed;

	LWLockAcquire(queue_lock(), LW_EXCLUSIVE);
	freed = slot->waiters == 0;
	if (freed)
		free_slot(slot);
	else
	{
		message_of(slot)->reply = *reply;
		slot->state = SLOT_DONE;
	}
	LWLockRelease(queue_lock());

	if (freed)
		ConditionVariableBroadcast(&queue->slot_freed);
	else
		ConditionVariableBroadcast(&slot->done);
}
