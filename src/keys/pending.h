/*-------------------------------------------------------------------------
 *
 * pending.h
 *	  What is to be done once the transaction has committed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PENDING_H
#define ENVELOPE_PENDING_H

#include "access/xact.h"
#include "nodes/pg_list.h"

/* One such thing, of the subtransaction that asked for it */
typedef struct Pending
{
	SubTransactionId subid;
	char	   *subject;		/* whom or what it is about; may be NULL */
} Pending;

extern void pending_add(List **list, const char *subject);
extern void pending_at_subtransaction_end(List **list, SubXactEvent event,
										  SubTransactionId subid,
										  SubTransactionId parent_subid);

#endif							/* ENVELOPE_PENDING_H */
