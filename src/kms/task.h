/*-------------------------------------------------------------------------
 *
 * task.h
 *	  What is asked of KMSs for a request, one thing after the other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_TASK_H
#define ENVELOPE_TASK_H

#include "kms/provider.h"

/* What earlier tasks have made; holds a key between two of them */
typedef struct Made
{
	Dek			dek;
	char		kek_version[KEK_VERSION_MAX];
	int			wrapped_len;
	uint8		wrapped[WRAPPED_DEK_MAX];
} Made;

typedef struct Tasks
{
	const KmsRequest *request;
	KmsTask		task;			/* the present one; points to the others */
	const KmsProvider *provider;	/* of its KEK; NULL: nobody knows its URI */
	bool		drawn;			/* a data key, by us */
	Made		made;
} Tasks;

extern void tasks_begin(Tasks *tasks, const KmsRequest *request);
extern bool tasks_next(Tasks *tasks, KmsAnswer *answer);
extern bool tasks_accept(const Tasks *tasks, KmsAnswer *answer, KmsReply *reply);
extern void tasks_wipe(Tasks *tasks);

#endif							/* ENVELOPE_TASK_H */
