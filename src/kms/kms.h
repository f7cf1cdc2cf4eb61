/*-------------------------------------------------------------------------
 *
 * kms.h
 *	  What is asked of a KMS and what it answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_KMS_H
#define ENVELOPE_KMS_H

#include "crypto/format.h"
#include "crypto/secret.h"

/*
 * Limits, refused when a KEK is made.  AWS documents 6,144 bytes for the
 * largest CiphertextBlob; nobody wraps 32 bytes into more.
 */
#define KEK_NAME_MAX		NAMEDATALEN
#define KEK_URI_MAX			1024
#define KEK_OPTIONS_MAX		2048
#define KEK_VERSION_MAX		256
#define WRAPPED_DEK_MAX		6144
#define KMS_DETAIL_MAX		512

typedef enum KmsOperation
{
	KMS_UNWRAP,
	KMS_GENERATE,
	KMS_WRAP,					/* the worker's own, never requested */
	KMS_REWRAP,					/* from one KEK to another, or to its newest
								 * version */
	KMS_CHECK					/* generate, unwrap, compare; keep nothing */
} KmsOperation;

#define KMS_OPERATIONS 5

/* How a call ended; what each means for a key in memory is in kms/verdict.c */
typedef enum KmsOutcome
{
	KMS_OK,
	KMS_DENIED,					/* the KMS says no: withdrawn, or no rights */
	KMS_UNREACHABLE,			/* no answer, or none that the KMS gave */
	KMS_CORRUPT,				/* not a key that this KEK has wrapped */
	KMS_MISCONFIGURED			/* the KEK cannot be used as it is set up */
} KmsOutcome;

#define KMS_OUTCOMES 5

/* Who waits, the most urgent first */
typedef enum KmsPriority
{
	KMS_FOREGROUND,				/* a statement */
	KMS_REFRESH,				/* nobody: a key in use is refreshed ahead */
	KMS_BULK					/* warming, provisioning many */
} KmsPriority;

/* Everything the worker needs; it looks nothing up.  Strings are UTF-8. */
typedef struct KmsRequest
{
	KmsOperation operation;
	KmsPriority priority;
	Oid			database;
	int64		key_id;
	KeyPurpose	purpose;
	uint64		generation;		/* of the tenant, read before the tables */
	char		tenant[TENANT_MAX_BYTES + 1];
	char		kek[KEK_NAME_MAX];
	char		uri[KEK_URI_MAX];
	char		options[KEK_OPTIONS_MAX];	/* a JSON object */
	char		kek_version[KEK_VERSION_MAX];	/* to unwrap: what wrapped it */
	uint8		key_check[KEY_CHECK_BYTES]; /* to unwrap */
	int			wrapped_len;	/* to unwrap */
	uint8		wrapped[WRAPPED_DEK_MAX];

	/* To re-wrap: what for; the same as above for the KEK's newest version */
	char		target_kek[KEK_NAME_MAX];
	char		target_uri[KEK_URI_MAX];
	char		target_options[KEK_OPTIONS_MAX];

	/* For the log of calls: whose session asks, where */
	char		role[NAMEDATALEN];
	char		database_name[NAMEDATALEN];
} KmsRequest;

/* What the caller gets; the caller wipes it */
typedef struct KmsReply
{
	KmsOutcome	outcome;
	char		detail[KMS_DETAIL_MAX]; /* why not; no secret, no reply body */
	DekSubkeys	subkeys;		/* unwrapped */
	uint8		key_check[KEY_CHECK_BYTES]; /* generated */

	/* Generated, or re-wrapped: unwrapped since, and its key_check verified */
	char		kek_version[KEK_VERSION_MAX];
	int			wrapped_len;
	uint8		wrapped[WRAPPED_DEK_MAX];
} KmsReply;

/* What else is known of an answer that is not ok */
typedef enum KmsHint
{
	HINT_NONE,
	HINT_THROTTLED,				/* unreachable, since asked too often */
	HINT_TIMED_OUT,				/* unreachable, since nothing came */
	HINT_MANGLED,				/* corrupt, but it may have been on the way */
	HINT_REFUSED,				/* unreachable lately, so not asked at all */
	HINT_CREDENTIAL_DEAD,		/* the KMS does not take the credential */
	HINT_CREDENTIAL_DOUBTED		/* denied, or else that */
} KmsHint;

#define KMS_REQUEST_ID_MAX	128

/* What a provider makes of the KMS's answer; the worker wipes it */
typedef struct KmsAnswer
{
	KmsOutcome	outcome;
	KmsHint		hint;
	char		detail[KMS_DETAIL_MAX];
	char		request_id[KMS_REQUEST_ID_MAX]; /* the KMS's own */
	Dek			dek;			/* generated or unwrapped */
	char		kek_version[KEK_VERSION_MAX];	/* generated or wrapped */
	int			wrapped_len;
	uint8		wrapped[WRAPPED_DEK_MAX];
} KmsAnswer;

extern const char *kms_operation_name(KmsOperation operation);
extern const char *kms_outcome_name(KmsOutcome outcome);

#endif							/* ENVELOPE_KMS_H */
