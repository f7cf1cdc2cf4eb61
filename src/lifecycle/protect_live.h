/*-------------------------------------------------------------------------
 *
 * protect_live.h
 *	  envelope_protect_live: protecting a large table while it is in use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROTECT_LIVE_H
#define ENVELOPE_PROTECT_LIVE_H

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

#include "tables/protect.h"

/* A call; what it points to outlives transactions */
typedef struct LiveCall
{
	FunctionCallInfo fcinfo;
	MemoryContext context;
	MemoryContext batch_context;
	Oid			relid;
	int			batch_pages;
	List	   *skipped;		/* of PageRange */
	int64		seen;			/* rows, in this phase */
	int64		done;
} LiveCall;

/* protect_live.c */
extern ProtectPlan *live_plan(const LiveCall *call, LOCKMODE lock);
extern void live_enter_phase(LiveCall *call, const char *phase);

/* protect_live_check.c */
extern void live_check_definition(ProtectPlan *plan);
extern bool live_has_new_terms(const ProtectPlan *plan);

/* protect_live_rows.c */
extern void live_update_rows(LiveCall *call, bool terms);

#endif							/* ENVELOPE_PROTECT_LIVE_H */
