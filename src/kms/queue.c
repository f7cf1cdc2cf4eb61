/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  The queue between backends, which ask, and the worker, which calls a KMS.
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
 * a word that may rise at any moment.  Latches are set and condition variables
 * broadcast after it is released.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"

#include "compat.h"
#include "kms/provider.h"
#include "kms/queue.h"
#include "settings.h"
#include "shmem.h"

/* Slots, as a multiple of the calls that can run at once, and at least */
#define SLOTS_PER_CONNECTION	4
#define MIN_SLOTS				8

#define FOREGROUND_SHARE		3
#define BULK_SHARE				1
#define RUNNING_SHARE			7
#define SERVER_SHARE			15

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
void
kms_queue_wake_worker(void)
{
	Latch	   *latch;

	LWLockAcquire(queue_lock(), LW_SHARED);
	latch = queue->worker_latch;
	LWLockRelease(queue_lock());
	if (latch)
		SetLatch(latch);
}

/* Was there ever a worker, since the server started? */
bool
kms_queue_had_worker(void)
{
	bool		had;

	LWLockAcquire(queue_lock(), LW_SHARED);
	had = queue->worker_was_seen;
	LWLockRelease(queue_lock());
	return had;
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
 * Join a slot that asks for the same, or take a free one; -1 where none can be
 * had now.  waiters is 1, or 0 for a refresh, which nobody waits for.  Whoever
 * waits leaves the slot in the end.
 */
int
kms_slot_enter(const KmsRequest *request, int64 deadline, int waiters)
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
	LWLockRelease(queue_lock());
	return slot ? (int) (slot - queue->slots) : -1;
}

/* Copy the reply to who waits, if it is there. */
bool
kms_slot_reply(int index, KmsReply *reply)
{
	const KmsSlot *slot = &queue->slots[index];
	bool		done;

	LWLockAcquire(queue_lock(), LW_SHARED);
	done = slot->state == SLOT_DONE;
	if (done)
		*reply = message_of(slot)->reply;
	LWLockRelease(queue_lock());
	return done;
}

/*
 * Stop waiting for a slot.
 */
void
kms_slot_leave(int index)
{
	KmsSlot    *slot = &queue->slots[index];
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
	LWLockRelease(queue_lock());

	if (freed)
		ConditionVariableBroadcast(&queue->slot_freed);
}

/* Broadcast when the reply in a slot is there */
ConditionVariable *
kms_slot_done(int index)
{
	return &queue->slots[index].done;
}

/* Broadcast when a slot was freed */
ConditionVariable *
kms_slot_freed(void)
{
	return &queue->slot_freed;
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
