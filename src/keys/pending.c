/*-------------------------------------------------------------------------
 *
 * pending.c
 *	  What is to be done once the transaction has committed.
 *
 * Lists lie in TopTransactionContext, ready to be gone through at the commit,
 * when nothing may fail any more.  Whoever keeps one sets it to NIL at each
 * end of a transaction, and hands the ends of subtransactions on: what one
 * that is rolled back has asked for is not done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "keys/pending.h"

/* Add to *list, for the current subtransaction, a copy of subject (or NULL). */
void
pending_add(List **list, const char *subject)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	Pending    *pending = palloc(sizeof(Pending));

	pending->subid = GetCurrentSubTransactionId();
	pending->subject = subject ? pstrdup(subject) : NULL;
	*list = lappend(*list, pending);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * To be called by a SubXactCallback, with its arguments: what a subtransaction
 * has asked for becomes its parent's, or is dropped with it.
 */
void
pending_at_subtransaction_end(List **list, SubXactEvent event,
							  SubTransactionId subid,
							  SubTransactionId parent_subid)
{
	ListCell   *cell;

	foreach(cell, *list)
	{
		Pending    *pending = lfirst(cell);

		if (pending->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			pending->subid = parent_subid;
		else if (event == SUBXACT_EVENT_ABORT_SUB)
			*list = foreach_delete_current(*list, cell);
	}
}
