/*-------------------------------------------------------------------------
 *
 * provider.h
 *	  The kinds of KMS, told apart by the scheme of a KEK's URI.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROVIDER_H
#define ENVELOPE_PROVIDER_H

#include "kms/kms.h"

typedef struct KmsProvider
{
	const char *scheme;			/* with "://" */
	const char *uri_form;		/* for error messages */
	const char *const *options; /* the names it knows, NULL at the end */

	/* Is what follows the scheme well-formed?  Called by any process. */
	bool		(*check_uri) (const char *rest);

	/* How long to hold the answer back, in ms; -1 for ever.  For tests. */
	int			(*delay_ms) (const KmsRequest *request);

	/*
	 * Answer a request to unwrap, generate or wrap.  *answer is zero but for
	 * the data key to wrap.  Called by the worker; does not throw.
	 */
	void		(*answer) (const KmsRequest *request, KmsAnswer *answer);
} KmsProvider;

extern const KmsProvider local_provider;

extern const KmsProvider *kms_provider_for(const char *uri);
extern const char *kms_uri_rest(const KmsProvider *provider, const char *uri);
extern bool kms_provider_has_option(const KmsProvider *provider, const char *name);
extern char *kms_known_schemes(void);

#endif							/* ENVELOPE_PROVIDER_H */
