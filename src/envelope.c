/*-------------------------------------------------------------------------
 *
 * envelope.c
 *	  Where the module begins: settings, shared memory, worker, hooks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "keys/audit.h"
#include "keys/guard.h"
#include "keys/keyring.h"
#include "keys/memo.h"
#include "kms/worker.h"
#include "settings.h"
#include "shmem.h"
#include "tables/functions.h"
#include "tables/hide.h"
#include "tables/implied.h"
#include "tables/planner.h"
#include "tables/protection.h"
#include "tables/seal.h"
#include "tables/statistics.h"
#include "tables/utility.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

/*
 * In a server that preloads the module, by the postmaster; else in a backend,
 * by the first function that is called.  There only those functions work that
 * need no key, and the rest say so.
 */
void
_PG_init(void)
{
	settings_define();
	memo_init();
	keyring_init();
	audit_init();
	guard_install_hooks();
	protection_init();
	seal_init();
	functions_init();

	if (process_shared_preload_libraries_in_progress)
	{
		shmem_install_hooks();
		planner_install_hooks();
		statistics_install_hooks();
		hide_install_hooks();
		implied_install_hooks();
		utility_install_hooks();
		worker_register();
	}
}
