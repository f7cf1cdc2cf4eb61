/*-------------------------------------------------------------------------
 *
 * gcp.c
 *	  KEKs in Google Cloud KMS:
 *	  gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K.
 *
 * Tenant and key id go along as additional authenticated data.  Cloud KMS draws
 * no data keys and does not re-wrap: the worker does the one, and unwraps and
 * wraps for the other.  The version that wrapped is found by Cloud KMS itself;
 * its number is kept to be counted.
 *
 * Everything sent and received has a checksum beside it.  Where one is wrong,
 * or Cloud KMS does not say that it has verified ours, the call is made again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_crc32c.h"

#include "crypto/secret.h"
#include "kms/options.h"
#include "kms/provider.h"

static const char *const gcp_options[] = {"profile", NULL};

/* NAME or NAME=VALUE segments of the path, in order */
static bool
gcp_check_uri(const char *rest)
{
	static const char *const parts[] = {"projects/", "locations/", "keyRings/", "cryptoKeys/"};
	const char *at = rest;

	for (int i = 0; i < lengthof(parts); i++)
	{
		size_t		len;

		if (strncmp(at, parts[i], strlen(parts[i])) != 0)
			return false;
		at += strlen(parts[i]);
		len = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:");
		if (len == 0 || len > 128 || at[0] == '.' || at[0] == ':' ||
			(i > 0 && memchr(at, ':', len)))
			return false;
		at += len;
		if (i < lengthof(parts) - 1 && *at++ != '/')
			return false;
	}
	return *at == '\0';
}

/* There is one for all. */
static size_t
gcp_service_len(const char *rest)
{
	return 0;
}

static bool
gcp_identify(const KmsTask *task, CredentialKey *key, KmsAnswer *answer)
{
	KekOption	option = {"profile", key->profile, sizeof(key->profile)};

	key->kind = &gcp_credentials;
	if (gcp_check_uri(kms_uri_rest(&gcp_provider, task->uri)) &&
		options_read(task->options, &option, 1))
		return true;
	answer_set(answer, KMS_MISCONFIGURED, HINT_NONE, "the KEK's URI or options are malformed");
	return false;
}

static uint32
checksum(const void *bytes, size_t len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes, len);
	FIN_CRC32C(crc);
	return crc;
}

/* Put bytes and their checksum, which Google writes as a text. */
static bool
put_bytes(Json *body, const char *name, const char *sum_name,
		  const void *bytes, size_t len)
{
	SecretBuffer text = {0};
	char		sum[16];
	bool		ok;

	buffer_base64(&text, bytes, len);
	snprintf(sum, sizeof(sum), "%u", checksum(bytes, len));
	ok = !text.failed && jdoc_put_text(body, name, buffer_text(&text)) &&
		jdoc_put_text(body, sum_name, sum);
	buffer_reset(&text);
	return ok;
}

/* What would let somebody lose the key, or give it away */
static const char *const rights[] = {
	"cloudkms.cryptoKeyVersions.destroy", "cloudkms.cryptoKeyVersions.update",
	"cloudkms.cryptoKeys.update", "cloudkms.cryptoKeys.setIamPolicy"
};

/* Which of these the credential has, for testIamPermissions */
static char *
make_rights_body(void)
{
	Json	   *body = jdoc_new();
	Json	   *permissions = jdoc_new_array();
	char	   *text = NULL;
	bool		ok = body != NULL;

	for (int i = 0; i < lengthof(rights) && ok; i++)
		ok = jdoc_append_text(permissions, rights[i]);
	if (jdoc_put(body, "permissions", permissions) && ok)
		text = jdoc_write(body);

	jdoc_free(body);
	return text;
}

/* Tell what the credential may do and should not. */
static void
take_rights(const Json *doc, KmsAnswer *answer)
{
	const Json *permissions = jdoc_get(doc, "permissions");
	size_t		len = 0;

	answer->outcome = KMS_OK;
	for (int i = 0; i < lengthof(rights); i++)
	{
		for (size_t j = 0; j < jdoc_length(permissions); j++)
		{
			const char *held = jdoc_string(jdoc_item(permissions, j));

			if (held == NULL || strcmp(held, rights[i]) != 0)
				continue;
			snprintf(answer->detail + len, sizeof(answer->detail) - len, "%s%s",
					 len == 0 ? "the credential may do more than it needs: " : ", ", rights[i]);
			len = strlen(answer->detail);
			break;
		}
	}
}

/* The body of a task; NULL where memory ran out. */
static char *
make_body(const KmsTask *task)
{
	SecretBuffer context = {0};
	Json	   *body;
	char	   *text = NULL;
	bool		ok;

	if (task->operation == KMS_CHECK)
		return make_rights_body();
	body = jdoc_new();
	buffer_printf(&context, "envelope/1/%lld/%s", (long long) task->key_id, task->tenant);
	ok = body != NULL && !context.failed &&
		put_bytes(body, "additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c",
				  buffer_text(&context), context.len);
	if (task->operation == KMS_UNWRAP)
		ok = ok && put_bytes(body, "ciphertext", "ciphertextCrc32c",
							 task->wrapped, task->wrapped_len);
	else
		ok = ok && put_bytes(body, "plaintext", "plaintextCrc32c",
							 task->dek->bytes, DEK_BYTES);
	if (ok)
		text = jdoc_write(body);

	jdoc_free(body);
	buffer_reset(&context);
	return text;
}

static bool
gcp_build(const KmsTask *tasks, int ntasks, const Credential *credential,
		  HttpRequest *request, KmsAnswer *answer)
{
	const KmsTask *task = &tasks[0];
	const char *verb = task->operation == KMS_CHECK ? "testIamPermissions" :
		task->operation == KMS_UNWRAP ? "decrypt" : "encrypt";
	char	   *text = make_body(task);

	if (text == NULL)
	{
		answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "the request could not be put together");
		return false;
	}
	buffer_puts(&request->body, text);
	jdoc_free_text(text);

	request->method = "POST";
	buffer_puts(&request->url, credential->endpoint.len > 0 ?
				credential->endpoint.data : "https://cloudkms.googleapis.com");
	while (request->url.len > 0 && request->url.data[request->url.len - 1] == '/')
		request->url.data[--request->url.len] = '\0';
	buffer_printf(&request->url, "/v1/%s:%s", kms_uri_rest(&gcp_provider, task->uri),
				  verb);
	http_header(request, "Content-Type", "application/json");
	http_bearer(request, buffer_text(&credential->token));
	buffer_puts(&request->ca_file, buffer_text(&credential->ca_file));
	return true;
}

/* Does the checksum of that name belong to these bytes? */
static bool
sum_is_right(const Json *doc, const char *name, const void *bytes, size_t len)
{
	int64		sum;

	return jdoc_int(doc, name, &sum) && sum == (int64) checksum(bytes, len);
}

static void
mangled(KmsAnswer *answer)
{
	secret_wipe(answer, sizeof(*answer));
	answer_set(answer, KMS_CORRUPT, HINT_MANGLED,
			   "a checksum of what went to or came from Cloud KMS is wrong");
}

static void
take_unwrapped(const Json *doc, KmsAnswer *answer)
{
	uint8		bytes[2 * DEK_BYTES];
	int			len = base64_decode_exactly(jdoc_text(doc, "plaintext"), bytes, sizeof(bytes));

	if (len >= 0 && !sum_is_right(doc, "plaintextCrc32c", bytes, len))
		mangled(answer);
	else if (len != DEK_BYTES)
		answer_set(answer, KMS_CORRUPT, HINT_NONE, "Cloud KMS answered with what is no data key");
	else
	{
		memcpy(answer->dek.bytes, bytes, DEK_BYTES);
		answer->outcome = KMS_OK;
	}
	secret_wipe(bytes, sizeof(bytes));
}

static void
take_wrapped(const Json *doc, KmsAnswer *answer)
{
	static const char versions[] = "/cryptoKeyVersions/";
	const char *name = jdoc_text(doc, "name");
	const char *version = name ? strstr(name, versions) : NULL;
	int			len = base64_decode_exactly(jdoc_text(doc, "ciphertext"),
											answer->wrapped, WRAPPED_DEK_MAX);

	if (len > 0 && (!jdoc_is_true(doc, "verifiedPlaintextCrc32c") ||
					!jdoc_is_true(doc, "verifiedAdditionalAuthenticatedDataCrc32c") ||
					!sum_is_right(doc, "ciphertextCrc32c", answer->wrapped, len)))
		mangled(answer);
	else if (len <= 0 || version == NULL || strlen(version) > 32)
		answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "Cloud KMS answered with no wrapped key");
	else
	{
		answer->wrapped_len = len;
		strlcpy(answer->kek_version, version + strlen(versions), sizeof(answer->kek_version));
		answer->outcome = KMS_OK;
	}
}

/* An error of Google's own */
static void
take_error(const KmsTask *task, const char *status, KmsAnswer *answer)
{
	KmsOutcome	outcome = KMS_MISCONFIGURED;
	KmsHint		hint = HINT_NONE;

	if (strcmp(status, "FAILED_PRECONDITION") == 0 ||
		strcmp(status, "PERMISSION_DENIED") == 0 || strcmp(status, "NOT_FOUND") == 0)
		outcome = KMS_DENIED;
	else if (strcmp(status, "INVALID_ARGUMENT") == 0)
		outcome = task->operation == KMS_UNWRAP ? KMS_CORRUPT : KMS_MISCONFIGURED;
	else if (strcmp(status, "UNAUTHENTICATED") == 0)
		hint = HINT_CREDENTIAL_DEAD;
	else if (strcmp(status, "RESOURCE_EXHAUSTED") == 0)
	{
		outcome = KMS_UNREACHABLE;
		hint = HINT_THROTTLED;
	}
	else if (strcmp(status, "INTERNAL") == 0 || strcmp(status, "UNAVAILABLE") == 0 ||
			 strcmp(status, "DEADLINE_EXCEEDED") == 0 || strcmp(status, "ABORTED") == 0 ||
			 strcmp(status, "UNKNOWN") == 0 || strcmp(status, "CANCELLED") == 0)
		outcome = KMS_UNREACHABLE;
	answer_set(answer, outcome, hint, "%sCloud KMS answered %.60s",
			   hint == HINT_CREDENTIAL_DEAD ? "credentials: " : "", status);
}

static void
gcp_parse(const KmsTask *tasks, int ntasks, const HttpReply *reply, KmsAnswer *answers)
{
	Json	   *doc = jdoc_read(buffer_text(&reply->body), reply->body.len);
	const char *status = jdoc_text(jdoc_get(doc, "error"), "status");

	if (reply->status == 200 && jdoc_is_object(doc))
	{
		if (tasks[0].operation == KMS_CHECK)
			take_rights(doc, &answers[0]);
		else if (tasks[0].operation == KMS_UNWRAP)
			take_unwrapped(doc, &answers[0]);
		else
			take_wrapped(doc, &answers[0]);
	}
	else if (status && reply->status >= 400)
		take_error(&tasks[0], status, &answers[0]);
	else
		answer_foreign_reply(&answers[0], reply);
	jdoc_free(doc);
}

const KmsProvider gcp_provider = {
	.scheme = "gcp-kms://",
	.uri_form = "gcp-kms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY",
	.options = gcp_options,
	.batch_max = 1,
	.only_wraps = true,
	.tells_rights = true,
	.check_uri = gcp_check_uri,
	.service_len = gcp_service_len,
	.identify = gcp_identify,
	.build = gcp_build,
	.parse = gcp_parse
};
