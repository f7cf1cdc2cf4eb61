/*-------------------------------------------------------------------------
 *
 * provider.h
 *	  The kinds of KMS, told apart by the scheme of a KEK's URI.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROVIDER_H
#define ENVELOPE_PROVIDER_H

#include "kms/credential.h"
#include "kms/http.h"
#include "kms/kms.h"

/* The most that one request to a KMS asks at once */
#define KMS_BATCH_MAX		64

/*
 * One thing asked of one KEK: to unwrap, generate, wrap or, where the provider
 * can, to re-wrap for another KEK.  Points into what outlives it.
 */
typedef struct KmsTask
{
	KmsOperation operation;
	const char *kek;
	const char *uri;
	const char *options;		/* a JSON object */
	const char *tenant;
	int64		key_id;
	const Dek  *dek;			/* to wrap */
	const char *kek_version;	/* to unwrap or re-wrap: what wrapped it */
	const uint8 *wrapped;
	int			wrapped_len;
	const char *target_uri;		/* to re-wrap */
	const char *target_options;
} KmsTask;

/*
 * How one kind of KMS is asked.  The worker has a provider build a request,
 * sends it, and has the provider parse the reply; neither does any I/O, throws,
 * or keeps anything.
 */
typedef struct KmsProvider
{
	const char *scheme;			/* with "://" */
	const char *uri_form;		/* for error messages */
	const char *const *options; /* the names it knows, NULL at the end */
	int			batch_max;		/* unwraps or re-wraps of a KEK in one request */
	bool		only_wraps;		/* it draws no keys; the worker does */
	bool		wrap_creates;	/* a KEK that is not there, unlike generating */
	bool		tells_rights;	/* answers KMS_CHECK too: what the credential
								 * may do that it should not, as the detail */

	/* Is what follows the scheme well-formed?  Called by any process. */
	bool		(*check_uri) (const char *rest);

	/*
	 * How much of what follows the scheme tells which server is asked?  KEKs
	 * that have it in common hang together.  NULL: all of it.
	 */
	size_t		(*service_len) (const char *rest);

	/* Can the KMS itself re-wrap this?  NULL: it cannot. */
	bool		(*can_rewrap) (const KmsTask *task);

	/*
	 * Which credential does it take?  NULL: none.  False with *answer set
	 * where the KEK's options make no sense.
	 */
	bool		(*identify) (const KmsTask *task, CredentialKey *key, KmsAnswer *answer);

	/*
	 * Build the request for tasks of one KEK, operation and credential; false
	 * with *answer set where that cannot be.
	 */
	bool		(*build) (const KmsTask *tasks, int ntasks, const Credential *credential,
						  HttpRequest *request, KmsAnswer *answer);

	/*
	 * Parse the reply, which came whole, into an answer to each task.  The
	 * answers are zero.  Of a request that sends nothing, the answer is made
	 * here; reply is then zero.
	 */
	void		(*parse) (const KmsTask *tasks, int ntasks, const HttpReply *reply,
						  KmsAnswer *answers);
} KmsProvider;

extern const KmsProvider local_provider;
extern const KmsProvider vault_provider;
extern const KmsProvider aws_provider;
extern const KmsProvider gcp_provider;

/* What follows the scheme of a URI that is the provider's */
static inline const char *
kms_uri_rest(const KmsProvider *provider, const char *uri)
{
	return uri + strlen(provider->scheme);
}

extern const KmsProvider *kms_provider_for(const char *uri);
extern size_t kms_uri_service_len(const char *uri);
extern bool kms_provider_has_option(const KmsProvider *provider, const char *name);
extern char *kms_known_schemes(void);

/* kms/answer.c */
extern void text_make_harmless(char *text);
extern void answer_set(KmsAnswer *answer, KmsOutcome outcome, KmsHint hint,
					   const char *fmt,...) pg_attribute_printf(4, 5);
extern void answer_foreign_reply(KmsAnswer *answer, const HttpReply *reply);

#endif							/* ENVELOPE_PROVIDER_H */
