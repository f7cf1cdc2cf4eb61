/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  The queue between backends and the KMS worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_QUEUE_H
#define ENVELOPE_QUEUE_H

#include "storage/latch.h"

#include "kms/kms.h"

extern Size kms_queue_shmem_size(void);
extern void kms_queue_shmem_init(void *area);

/* For backends */
typedef bool (*kms_fill_fn) (int item, KmsRequest *request, void *arg);
typedef void (*kms_done_fn) (int item, const KmsReply *reply, void *arg);

extern void kms_call(const KmsRequest *request, KmsReply *reply);
extern void kms_call_many(int nitems, kms_fill_fn fill, kms_done_fn done, void *arg);
extern void kms_refresh(const KmsRequest *request);
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
