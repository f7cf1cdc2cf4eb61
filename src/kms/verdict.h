/*-------------------------------------------------------------------------
 *
 * verdict.h
 *	  A call that the worker has under way, and what an answer means for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_VERDICT_H
#define ENVELOPE_VERDICT_H

#include "portability/instr_time.h"

#include "kms/credential.h"
#include "kms/endpoint.h"
#include "kms/http.h"
#include "kms/kms.h"
#include "kms/task.h"

typedef enum CallStep
{
	CALL_FREE,
	CALL_ATTEMPT,
	CALL_CREDENTIAL,
	CALL_ASKING
} CallStep;

typedef struct Call
{
	CallStep	step;
	int64		due;			/* when to take the step, boottime_ms() */
	int			slot;			/* of the queue */
	const KmsRequest *request;	/* of the slot */
	Tasks		tasks;			/* that it takes */
	int			attempts;		/* at the present one, made so far */
	bool		confirming;		/* was denied once */
	bool		credential_tried;	/* was refused with one credential */
	int64		begun_at;
	instr_time	attempted_at;
	int64		sent_at;		/* the same, boottime_ms() */

	CredentialEntry *credential;	/* held; NULL: it takes none */
	uint64		credential_version;
	Endpoint   *endpoint;		/* held while ASKING; NULL: nothing is sent */
	struct Call *leader;		/* itself, or that with which it rides */
	int			place;			/* among those that ride; the leader's is 0 */
	HttpExchange exchange;		/* of a leader */
} Call;

extern void call_use_credential(Call *call, CredentialEntry *entry);
extern void call_finish(Call *call, const KmsAnswer *answer, KmsReply *reply);
extern int64 call_deadline(const Call *call);
extern void call_take_answer(Call *call, KmsAnswer *answer, KmsReply *reply);

#endif							/* ENVELOPE_VERDICT_H */
