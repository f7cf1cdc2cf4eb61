/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  Answers that all providers have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/provider.h"

/* Keep only what can do no harm in a log or a terminal. */
void
text_make_harmless(char *text)
{
	for (char *at = text; *at; at++)
	{
		if (*at < 0x20 || *at > 0x7e)
			*at = '?';
	}
}

/* Say how a task ended. */
void
answer_set(KmsAnswer *answer, KmsOutcome outcome, KmsHint hint, const char *fmt,...)
{
	va_list		args;

	answer->outcome = outcome;
	answer->hint = hint;
	va_start(args, fmt);
	vsnprintf(answer->detail, sizeof(answer->detail), fmt, args);
	va_end(args);
}

/*
 * A reply that is not the KMS's own: a proxy or a page in between, which says
 * nothing about the key.
 */
void
answer_foreign_reply(KmsAnswer *answer, const HttpReply *reply)
{
	answer_set(answer, KMS_UNREACHABLE,
			   reply->status == 429 ? HINT_THROTTLED : HINT_NONE,
			   "an answer with HTTP status %ld that is not the KMS's own", reply->status);
}
