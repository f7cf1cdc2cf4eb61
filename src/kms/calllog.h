/*-------------------------------------------------------------------------
 *
 * calllog.h
 *	  A line in the server log for each call of a KMS.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_CALLLOG_H
#define ENVELOPE_CALLLOG_H

#include "portability/instr_time.h"

#include "kms/provider.h"

extern void call_log(const KmsRequest *request, const KmsTask *task,
					 const KmsAnswer *answer, const instr_time *asked_at);

#endif							/* ENVELOPE_CALLLOG_H */
