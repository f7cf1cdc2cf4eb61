/*-------------------------------------------------------------------------
 *
 * provider.c
 *	  The table of providers.
 *
 * A provider is a file of its own that knows how one kind of KMS is asked.
 * Nothing outside it depends on which kind a KEK is of: a new one is a new
 * file and a line here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "kms/provider.h"

static const KmsProvider *const providers[] = {
	&local_provider,
	&aws_provider,
	&gcp_provider,
	&vault_provider,
};

/* Find who serves a URI; NULL where nobody does. */
const KmsProvider *
kms_provider_for(const char *uri)
{
	for (int i = 0; i < lengthof(providers); i++)
	{
		if (strncmp(uri, providers[i]->scheme, strlen(providers[i]->scheme)) == 0)
			return providers[i];
	}
	return NULL;
}

/* How much of a URI other KEKs of the same server have in common with it */
size_t
kms_uri_service_len(const char *uri)
{
	const KmsProvider *provider = kms_provider_for(uri);
	const char *rest;

	if (provider == NULL || provider->service_len == NULL)
		return strlen(uri) + 1;
	rest = kms_uri_rest(provider, uri);
	return rest - uri + provider->service_len(rest);
}

bool
kms_provider_has_option(const KmsProvider *provider, const char *name)
{
	for (const char *const *option = provider->options; *option; option++)
	{
		if (strcmp(*option, name) == 0)
			return true;
	}
	return false;
}

/* The forms of URI that are known, for a hint; palloc'd. */
char *
kms_known_schemes(void)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lengthof(providers); i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "", providers[i]->uri_form);
	return buf.data;
}

const char *
kms_operation_name(KmsOperation operation)
{
	switch (operation)
	{
		case KMS_UNWRAP:
			return "unwrap";
		case KMS_GENERATE:
			return "generate";
		case KMS_WRAP:
			return "wrap";
		case KMS_REWRAP:
			return "rewrap";
		case KMS_CHECK:
			return "check";
	}
	return "unknown";
}

const char *
kms_outcome_name(KmsOutcome outcome)
{
	switch (outcome)
	{
		case KMS_OK:
			return "ok";
		case KMS_DENIED:
			return "denied";
		case KMS_UNREACHABLE:
			return "unreachable";
		case KMS_CORRUPT:
			return "corrupt";
		case KMS_MISCONFIGURED:
			return "misconfigured";
	}
	return "unknown";
}
