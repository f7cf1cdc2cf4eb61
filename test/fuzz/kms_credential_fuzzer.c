/*-------------------------------------------------------------------------
 *
 * kms_credential_fuzzer.c
 *	  Files and replies that credentials are made from: whatever they hold,
 *	  a credential is made, the next thing is asked, or it is said why not.
 *
 * The first byte says what is fed: a file of profiles, an INI file, XML of STS,
 * a time; or a fetch of one kind, whose files and replies are the parts of the
 * input that zero bytes divide.
 *
 * sources: src/crypto/sign.c src/kms/answer.c src/kms/aws.c src/kms/aws_credentials.c src/kms/aws_files.c src/kms/buffer.c src/kms/gcp_credentials.c src/kms/json.c src/kms/options.c src/kms/profiles.c src/kms/request.c src/kms/vault.c src/kms/vault_credentials.c
 * libraries: -ljansson -lcrypto
 * seeds: kms_credential_seeds.py
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/aws.h"
#include "kms/provider.h"
#include "settings.h"

#define STEPS_MAX 12

/* What the sources want from the module */
char	   *envelope_credentials_file = NULL;

static const CredentialKind *const kinds[] = {&aws_credentials, &gcp_credentials, &vault_credentials};

/* What is left of the input */
static const char *part;
static size_t left;

static Json *profile_doc;

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* As Assert, but always there */
static void
must(bool holds, const char *what)
{
	if (!holds)
	{
		fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}

/* The next part of the input */
static const char *
take_part(size_t *len)
{
	const char *start = part;

	*len = strnlen(part, left);
	part += Min(*len + 1, left);
	left -= Min(*len + 1, left);
	return start;
}

const char *
environment(const char *name)
{
	if (strcmp(name, "HOME") == 0)
		return "/nowhere";
	return NULL;
}

void
fetch_fail(CredentialFetch *fetch, KmsOutcome outcome, const char *fmt,...)
{
	va_list		args;

	fetch->outcome = outcome;
	va_start(args, fmt);
	vsnprintf(fetch->detail, sizeof(fetch->detail), fmt, args);
	va_end(args);
}

/* Every file is the next part. */
bool
fetch_file(CredentialFetch *fetch, const char *path, const char *what,
		   SecretBuffer *contents)
{
	size_t		len;
	const char *text = take_part(&len);

	buffer_reset(contents);
	buffer_append(contents, text, len);
	return true;
}

bool
fetch_profile(CredentialFetch *fetch, const Json **profile)
{
	*profile = profile_doc;
	return true;
}

void
fetch_take_common(CredentialFetch *fetch, const Json *profile)
{
	const char *endpoint = jdoc_text(profile, "endpoint");

	buffer_set(&fetch->made.endpoint, endpoint ? endpoint : "https://kms.test");
}

void
fetch_foreign_reply(CredentialFetch *fetch, const HttpReply *reply, const char *what)
{
	fetch_fail(fetch, KMS_UNREACHABLE, "%s", what);
}

bool
credential_may_go_to(const Credential *credential, const char *url)
{
	return true;
}

static void
reset_credential(Credential *credential)
{
	buffer_reset(&credential->access_key);
	buffer_reset(&credential->secret_key);
	buffer_reset(&credential->token);
	buffer_reset(&credential->client_cert);
	buffer_reset(&credential->client_key);
	buffer_reset(&credential->ca_file);
	buffer_reset(&credential->endpoint);
	buffer_reset(&credential->name_space);
	buffer_reset(&credential->hosts);
}

/* A fetch from its beginning to its end, the profile being the first part */
static void
run_fetch(const CredentialKind *kind)
{
	CredentialKey key = {.kind = kind, .profile = "p", .address = "kms.test", .role = "arn:aws:iam::1:role/x"};
	CredentialFetch fetch = {.key = &key};
	HttpRequest request = {0};
	HttpReply	reply = {.answered = true, .status = 200};
	FetchStep	step = FETCH_ASK;
	size_t		len;
	const char *text = take_part(&len);

	profile_doc = jdoc_read(text, len);
	for (int i = 0; i < STEPS_MAX && step == FETCH_ASK; i++)
	{
		step = kind->next(&fetch, &request);
		must(step != FETCH_FAILED || fetch.outcome != KMS_OK, "it says why it failed");
		must(step != FETCH_ASK || request.method != NULL, "something is asked");
		http_request_reset(&request);
		if (step != FETCH_ASK)
			break;
		text = take_part(&len);
		buffer_append(&reply.body, text, len);
		kind->take(&fetch, &reply);
		buffer_reset(&reply.body);
		if (fetch.outcome != KMS_OK)
			break;
	}
	must(step != FETCH_DONE || fetch.made.lifetime_ms >= 0, "it lives");
	must(memchr(fetch.detail, '\0', sizeof(fetch.detail)) != NULL, "the detail ends");
	reset_credential(&fetch.made);
	for (int i = 0; i < lengthof(fetch.scratch); i++)
		buffer_reset(&fetch.scratch[i]);
	jdoc_free(profile_doc);
	profile_doc = NULL;
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	SecretBuffer value = {0};
	const char *problem;
	char	   *text;
	int64		epoch;
	Json	   *doc;

	if (size == 0)
		return 0;
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	part = text;
	left = size - 1;
	switch (data[0] % 7)
	{
		case 0:
			doc = profiles_parse(text, size - 1, &problem);
			must((doc == NULL) == (problem != NULL), "it is read, or it is said why not");
			jdoc_free(doc);
			break;
		case 1:
			(void) ini_get(text, "default", "aws_access_key_id", &value);
			(void) ini_get(text, "profile x", "role_arn", &value);
			break;
		case 2:
			(void) xml_get(text, "AccessKeyId", &value);
			break;
		case 3:
			if (iso_time_parse(text, &epoch))
				must(epoch > 0, "a time is later than the epoch");
			must(lifetime_of(text, 1700000000) >= 0, "what expired lives for a moment");
			break;
		default:
			run_fetch(kinds[data[0] % 7 - 4]);
			break;
	}
	buffer_reset(&value);
	free(text);
	return 0;
}
