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
 * It keeps as many calls under way at once as the queue lets it
 * (kms/call.c), and the credentials that these take (kms/credential.c).  One
 * wait covers the latch, curl's sockets (kms/http.c) and the next thing that is
 * due.  The end of the process waits for no transfer.
 *
 * An error ends the process with code 1; the postmaster starts it again after
 * RESTART_S, and requests wait meanwhile.  Key bytes stand in this process only
 * while an answer is handled, or a key is re-wrapped or checked, and its memory
 * is left out of core files.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"

#include "compat.h"
#include "keys/cache.h"
#include "kms/call.h"
#include "kms/credential.h"
#include "kms/endpoint.h"
#include "kms/http.h"
#include "kms/json.h"
#include "kms/queue.h"
#include "kms/retry.h"
#include "kms/worker.h"
#include "settings.h"

#define RESTART_S		1
#define TICK_MS			1000
#define IDLE_MS			3600000L

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

/* How long to sleep, in ms, if nothing happens before. */
static long
time_to_sleep(int64 next_tick)
{
	int64		due = Min(calls_next_due(), Min(credentials_next_due(), http_next_due()));

	if (dek_cache_needs_tick())
		due = Min(due, next_tick);
	return (long) Min(Max(due - boottime_ms(), 0), IDLE_MS);
}

static void
reload_settings(void)
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	denials_forget_all();
	endpoints_forget();
	credentials_reload();
}

/* What the worker waits for, beside the clock */
static WaitEventSet *
make_wait_set(void)
{
	WaitEventSet *set = wait_event_set_create(3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, http_wait_fd(), NULL, NULL);
	return set;
}

/*
 * The process's main function.
 */
void
envelope_worker_main(Datum arg)
{
	uint32		wait_event;
	WaitEventSet *wait_set;
	WaitEvent	happened[3];
	int			ncalls;
	int64		next_tick = 0;
	bool		busy;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	process_keep_out_of_core_files();
	wait_event = wait_event_named("EnvelopeWorkerMain");
	jdoc_wipe_what_is_freed();
	ncalls = http_start(kms_calls_wanted());
	calls_start(ncalls);
	wait_set = make_wait_set();
	before_shmem_exit(detach_from_queue, (Datum) 0);
	kms_queue_attach(MyLatch, ncalls);

	for (;;)
	{
		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
			proc_exit(1);		/* to be started again unless the server ends */
		if (ConfigReloadPending)
			reload_settings();

		http_drive();
		credentials_drive();
		busy = calls_advance();
		if (dek_cache_needs_tick() && boottime_ms() >= next_tick)
		{
			dek_cache_tick();
			next_tick = boottime_ms() + TICK_MS;
		}

		(void) WaitEventSetWait(wait_set, busy ? 0 : time_to_sleep(next_tick),
								happened, lengthof(happened), wait_event);
	}
}
