/*-------------------------------------------------------------------------
 *
 * retry.h
 *	  How often, how long and when to ask a KMS again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_RETRY_H
#define ENVELOPE_RETRY_H

#include "kms/kms.h"

typedef struct RetryPolicy
{
	int			attempts;
	int			connect_ms;		/* how long connecting may take */
	int			attempt_ms;		/* how long one may take */
	int			whole_ms;		/* how long all may take, waits included */
	int			backoff_ms;		/* before the second, at most; then doubled */
	int			backoff_max_ms;
	int			throttled_ms;	/* the same where the KMS throttles */
	int			throttled_max_ms;
} RetryPolicy;

extern const RetryPolicy *retry_policy(KmsPriority priority);
extern int	retry_backoff_ms(const RetryPolicy *policy, int attempts_made,
							 bool throttled);

/* What was answered about keys that could not be had; the worker's own */
extern void denials_note(const KmsRequest *request, uint64 generation,
						 KmsOutcome outcome, const char *detail);
extern bool denials_recall(const KmsRequest *request, KmsOutcome *outcome,
						   char *detail);
extern void denials_forget(const KmsRequest *request);
extern void denials_forget_kek(Oid database, const char *kek, bool denied_too);
extern void denials_forget_all(void);

#endif							/* ENVELOPE_RETRY_H */
