/*-------------------------------------------------------------------------
 *
 * ask.h
 *	  How backends ask the worker, and wait for its answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ASK_H
#define ENVELOPE_ASK_H

#include "kms/kms.h"

typedef bool (*kms_fill_fn) (int item, KmsRequest *request, void *arg);
typedef void (*kms_done_fn) (int item, const KmsReply *reply, void *arg);

extern void kms_call(const KmsRequest *request, KmsReply *reply);
extern void kms_call_many(int nitems, kms_fill_fn fill, kms_done_fn done, void *arg);
extern void kms_refresh(const KmsRequest *request);

#endif							/* ENVELOPE_ASK_H */
