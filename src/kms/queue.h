/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  The queue between backends and the KMS worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_QUEUE_H
#define ENVELOPE_QUEUE_H

#include "storage/condition_variable.h"
#include "storage/latch.h"

#include "kms/kms.h"

extern Size kms_queue_shmem_size(void);
extern void kms_queue_shmem_init(void *area);

/* For backends, see kms/ask.c */
extern int	kms_slot_enter(const KmsRequest *request, int64 deadline, int waiters);
extern bool kms_slot_reply(int slot, KmsReply *reply);
extern void kms_slot_leave(int slot);
extern ConditionVariable *kms_slot_done(int slot);
extern ConditionVariable *kms_slot_freed(void);
extern void kms_queue_wake_worker(void);
extern bool kms_queue_had_worker(void);
extern int	kms_worker_pid(void);
extern int	kms_request_count(void);

/* For the worker */
extern int	kms_calls_wanted(void);
extern void kms_queue_attach(Latch *latch, int ncalls);
extern void kms_queue_detach(void);
extern int	kms_queue_claim(void);
extern const KmsRequest *kms_queue_request(int slot);
extern int64 kms_queue_deadline(int slot);
extern bool kms_queue_is_wanted(int slot);
extern void kms_queue_finish(int slot, const KmsReply *reply);

#endif							/* ENVELOPE_QUEUE_H */
