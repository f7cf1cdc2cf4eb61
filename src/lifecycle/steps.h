/*-------------------------------------------------------------------------
 *
 * steps.h
 *	  Work in many short transactions, and waiting for those of others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_STEPS_H
#define ENVELOPE_STEPS_H

#include "fmgr.h"

/* Tells of whom is waited for, NULL when nobody; called in a transaction */
typedef void (*waiting_fn) (const char *whom, void *arg);

/* Tells that a lock on a table is waited for; called in a transaction */
typedef void (*refused_fn) (Oid relid);

extern void steps_begin(FunctionCallInfo fcinfo, const char *what);
extern void steps_end(void);
extern void steps_commit(void);
extern void steps_sleep(long ms);
extern void steps_await_transactions(waiting_fn waiting, void *arg);
extern char *steps_describe_xid(TransactionId xid);
extern void steps_lock_table(Oid relid, refused_fn refused);
extern void steps_throttle(waiting_fn waiting, void *arg);
extern ErrorData *steps_recover(MemoryContext context);

extern bool steps_lock_tenant(const char *tenant, bool session);
extern void steps_unlock_tenant(const char *tenant);
extern bool steps_lock_kek(const char *kek);
extern void steps_unlock_kek(const char *kek);
extern bool steps_lock_protection(Oid relid);
extern void steps_unlock_protection(Oid relid);
extern bool steps_lock_maintenance(void);
extern void steps_unlock_maintenance(void);

#endif							/* ENVELOPE_STEPS_H */
