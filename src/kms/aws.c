/*-------------------------------------------------------------------------
 *
 * aws.c
 *	  KEKs in AWS KMS: aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID, or an alias.
 *
 * Tenant and key id go along as the encryption context, without which the KMS
 * does not unwrap, and which stands in CloudTrail.  The ARN of the key that
 * answered is stored with every wrapped key and named when it is unwrapped, so
 * that an alias that is moved leaves nothing behind.  Keys are re-wrapped inside
 * the KMS where source and target are asked in the same region with the same
 * credential.
 *
 * Errors come with HTTP status 400, throttling too: what they mean is told by
 * their code alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "crypto/secret.h"
#include "kms/aws.h"
#include "kms/options.h"
#include "kms/provider.h"

static const char *const aws_options[] = {"region", "role_arn", "external_id", "profile", NULL};

#define WORD_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

/* An ARN of a key, taken apart */
typedef struct AwsKey
{
	char		partition[32];
	char		region[40];
	const char *rest;			/* ACCOUNT:key/ID */
} AwsKey;

/* How a KEK is asked */
typedef struct AwsKek
{
	char		region[40];
	char		role[ROLE_MAX];
	char		external_id[EXTERNAL_ID_MAX];
	char		profile[PROFILE_NAME_MAX];
	char		partition[32];
	char		arn[KEK_URI_MAX];
} AwsKek;

/* Copy a word up to a colon; false where it is none or does not fit. */
static const char *
take_word(const char *at, char *word, size_t size)
{
	size_t		len = strspn(at, WORD_CHARS);

	if (len == 0 || len >= size || at[len] != ':')
		return NULL;
	memcpy(word, at, len);
	word[len] = '\0';
	return at + len + 1;
}

/*
 * Is it a region, such as us-gov-west-1?  It becomes a part of a host's name,
 * where some other words would lead to what others run at AWS.
 */
static bool
is_region(const char *text)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
	int			words = 0;
	size_t		len;

	while ((len = strspn(text, letters)) > 0 && text[len] == '-')
	{
		text	  +=len + 1;

		words++;
	}
	len = strspn(text, "0123456789");
	return words >= 2 && len >= 1 && len <= 2 && text[len] == '\0';
}

/* arn:PARTITION:kms:REGION:ACCOUNT:key/ID, or alias/NAME */
static bool
parse_arn(const char *arn, AwsKey *key)
{
	const char *at = arn;
	size_t		digits;

	if (strncmp(at, "arn:", 4) != 0 ||
		(at = take_word(at + 4, key->partition, sizeof(key->partition))) == NULL ||
		strncmp(at, "kms:", 4) != 0 ||
		(at = take_word(at + 4, key->region, sizeof(key->region))) == NULL ||
		!is_region(key->region))
		return false;
	key->rest = at;
	digits = strspn(at, "0123456789");
	if (digits == 0 || at[digits] != ':')
		return false;
	at += digits + 1;
	if (strncmp(at, "key/", 4) == 0)
		at += 4;
	else if (strncmp(at, "alias/", 6) == 0)
		at += 6;
	else
		return false;
	return at[0] != '\0' && strspn(at, WORD_CHARS "_/") == strlen(at);
}

static bool
aws_check_uri(const char *rest)
{
	AwsKey		key;

	return parse_arn(rest, &key);
}

/* arn:PARTITION:kms:REGION: */
static size_t
aws_service_len(const char *rest)
{
	size_t		len = 0;

	for (int colons = 0; colons < 4 && rest[len] != '\0'; len++)
		colons += rest[len] == ':';
	return len;
}

/* The domain of a partition's services, by the partition or the region */
const char *
aws_domain(const char *partition_or_region)
{
	if (strncmp(partition_or_region, "aws-cn", 6) == 0 ||
		strncmp(partition_or_region, "cn-", 3) == 0)
		return "amazonaws.com.cn";
	return "amazonaws.com";
}

/*
 * Parse how a KEK is asked.  A region other than that of its ARN makes sense for
 * a multi-region key only, whose ARN differs in nothing else.
 */
static bool
parse_kek(const char *uri, const char *options, AwsKek *kek)
{
	AwsKey		key;
	KekOption	places[] = {
		{"region", kek->region, sizeof(kek->region)},
		{"role_arn", kek->role, sizeof(kek->role)},
		{"external_id", kek->external_id, sizeof(kek->external_id)},
		{"profile", kek->profile, sizeof(kek->profile)}
	};

	if (strncmp(uri, aws_provider.scheme, strlen(aws_provider.scheme)) != 0 ||
		!parse_arn(kms_uri_rest(&aws_provider, uri), &key) ||
		!options_read(options, places, lengthof(places)))
		return false;
	strlcpy(kek->partition, key.partition, sizeof(kek->partition));
	if (kek->region[0] == '\0')
		strlcpy(kek->region, key.region, sizeof(kek->region));
	if (!is_region(kek->region) ||
		(strcmp(kek->region, key.region) != 0 && strstr(key.rest, ":key/mrk-") == NULL))
		return false;
	snprintf(kek->arn, sizeof(kek->arn), "arn:%s:kms:%s:%s",
			 key.partition, kek->region, key.rest);
	return true;
}

/* The same, of which the last result is kept: one KEK is often asked in a row. */
static bool
read_kek(const char *uri, const char *options, AwsKek *kek)
{
	static char last_uri[KEK_URI_MAX];
	static char last_options[KEK_OPTIONS_MAX];
	static AwsKek last;

	if (strcmp(uri, last_uri) != 0 || strcmp(options, last_options) != 0)
	{
		last_uri[0] = '\0';
		memset(&last, 0, sizeof(last));
		if (!parse_kek(uri, options, &last))
			return false;
		strlcpy(last_uri, uri, sizeof(last_uri));
		strlcpy(last_options, options, sizeof(last_options));
	}
	*kek = last;
	return true;
}

static bool
aws_can_rewrap(const KmsTask *task)
{
	static AwsKek from;
	static AwsKek to;

	return read_kek(task->uri, task->options, &from) &&
		read_kek(task->target_uri, task->target_options, &to) &&
		strcmp(from.region, to.region) == 0 && strcmp(from.role, to.role) == 0 &&
		strcmp(from.external_id, to.external_id) == 0 &&
		strcmp(from.profile, to.profile) == 0;
}

static bool
aws_identify(const KmsTask *task, CredentialKey *key, KmsAnswer *answer)
{
	static AwsKek kek;

	if (!read_kek(task->uri, task->options, &kek))
	{
		answer_set(answer, KMS_MISCONFIGURED, HINT_NONE,
				   "the KEK's URI or options are malformed, or its region is not that of its ARN");
		return false;
	}
	key->kind = &aws_credentials;
	strlcpy(key->address, kek.region, sizeof(key->address));
	strlcpy(key->role, kek.role, sizeof(key->role));
	strlcpy(key->external_id, kek.external_id, sizeof(key->external_id));
	strlcpy(key->profile, kek.profile, sizeof(key->profile));
	return true;
}

/* What is bound into a wrapped key */
static Json *
make_context(const KmsTask *task)
{
	Json	   *context = jdoc_new();
	char		key_id[32];

	snprintf(key_id, sizeof(key_id), "%lld", (long long) task->key_id);
	if (jdoc_put_text(context, "envelope:tenant", task->tenant) &&
		jdoc_put_text(context, "envelope:key_id", key_id))
		return context;
	jdoc_free(context);
	return NULL;
}

/* The key that wrapped what a task unwraps, as far as is known */
static const char *
wrapping_key(const KmsTask *task, const AwsKek *kek)
{
	AwsKey		key;

	/* It names a key of the same region, or it was not us who stored it. */
	if (task->kek_version && parse_arn(task->kek_version, &key) &&
		strcmp(key.region, kek->region) == 0)
		return task->kek_version;
	return kek->arn;
}

static bool
put_bytes(Json *body, const char *name, const void *bytes, size_t len)
{
	SecretBuffer text = {0};
	bool		ok;

	buffer_base64(&text, bytes, len);
	ok = !text.failed && jdoc_put_text(body, name, buffer_text(&text));
	buffer_reset(&text);
	return ok;
}

/* The body of a task, and the operation's name */
static bool
make_body(const KmsTask *task, const AwsKek *kek, Json *body, const char **operation)
{
	static AwsKek target;

	switch (task->operation)
	{
		case KMS_UNWRAP:
			*operation = "Decrypt";
			return put_bytes(body, "CiphertextBlob", task->wrapped, task->wrapped_len) &&
				jdoc_put_text(body, "KeyId", wrapping_key(task, kek)) &&
				jdoc_put(body, "EncryptionContext", make_context(task));
		case KMS_GENERATE:
			*operation = "GenerateDataKey";
			return jdoc_put_text(body, "KeyId", kek->arn) &&
				jdoc_put_text(body, "KeySpec", "AES_256") &&
				jdoc_put(body, "EncryptionContext", make_context(task));
		case KMS_WRAP:
			*operation = "Encrypt";
			return jdoc_put_text(body, "KeyId", kek->arn) &&
				put_bytes(body, "Plaintext", task->dek->bytes, DEK_BYTES) &&
				jdoc_put(body, "EncryptionContext", make_context(task));
		case KMS_REWRAP:
			*operation = "ReEncrypt";
			return read_kek(task->target_uri, task->target_options, &target) &&
				put_bytes(body, "CiphertextBlob", task->wrapped, task->wrapped_len) &&
				jdoc_put_text(body, "SourceKeyId", wrapping_key(task, kek)) &&
				jdoc_put(body, "SourceEncryptionContext", make_context(task)) &&
				jdoc_put_text(body, "DestinationKeyId", target.arn) &&
				jdoc_put(body, "DestinationEncryptionContext", make_context(task));
		case KMS_CHECK:
			*operation = "DescribeKey";
			return jdoc_put_text(body, "KeyId", kek->arn);
	}
	return false;
}

static bool
aws_build(const KmsTask *tasks, int ntasks, const Credential *credential,
		  HttpRequest *request, KmsAnswer *answer)
{
	static AwsKek kek;
	Json	   *body = jdoc_new();
	char	   *text = NULL;
	const char *operation = "";
	char		target[64];

	if (body && read_kek(tasks[0].uri, tasks[0].options, &kek) &&
		make_body(&tasks[0], &kek, body, &operation))
		text = jdoc_write(body);

	jdoc_free(body);
	if (text == NULL)
	{
		answer_set(answer, KMS_MISCONFIGURED, HINT_NONE, "the request could not be put together");
		return false;
	}
	buffer_puts(&request->body, text);
	jdoc_free_text(text);

	request->method = "POST";
	if (credential->endpoint.len > 0)
		buffer_puts(&request->url, credential->endpoint.data);
	else
		buffer_printf(&request->url, "https://kms.%s.%s", kek.region, aws_domain(kek.partition));
	if (request->url.len > 0 && request->url.data[request->url.len - 1] != '/')
		buffer_puts(&request->url, "/");
	snprintf(target, sizeof(target), "TrentService.%s", operation);
	http_header(request, "Content-Type", "application/x-amz-json-1.1");
	http_header(request, "X-Amz-Target", target);
	if (credential->token.len > 0)
		http_header(request, "X-Amz-Security-Token", credential->token.data);
	buffer_printf(&request->sigv4, "aws:amz:%s:kms", kek.region);
	buffer_puts(&request->access_key, buffer_text(&credential->access_key));
	buffer_puts(&request->secret_key, buffer_text(&credential->secret_key));
	buffer_puts(&request->ca_file, buffer_text(&credential->ca_file));
	return true;
}

/*
 * The code of an error: what follows "#" and comes before ":", of the body or
 * else the header.  Empty where there is none.
 */
static void
take_code(const HttpReply *reply, const Json *doc, char *code, size_t size)
{
	const char *type = jdoc_text(doc, "__type");
	const char *hash;
	size_t		len;

	if (type == NULL)
		type = reply->error_type;
	hash = strchr(type, '#');
	if (hash)
		type = hash + 1;
	len = strspn(type, WORD_CHARS);
	strlcpy(code, type, Min(len + 1, size));
}

/* What a code means */
static void
take_error(const char *code, long status, KmsAnswer *answer)
{
	typedef struct CodeMeaning
	{
		const char *code;
		KmsOutcome	outcome;
		KmsHint		hint;
	}			CodeMeaning;
	static const CodeMeaning meanings[] = {
		{"ThrottlingException", KMS_UNREACHABLE, HINT_THROTTLED},
		{"Throttling", KMS_UNREACHABLE, HINT_THROTTLED},
		{"RequestLimitExceeded", KMS_UNREACHABLE, HINT_THROTTLED},
		{"TooManyRequestsException", KMS_UNREACHABLE, HINT_THROTTLED},
		{"LimitExceededException", KMS_UNREACHABLE, HINT_THROTTLED},
		{"KMSInternalException", KMS_UNREACHABLE, HINT_NONE},
		{"DependencyTimeoutException", KMS_UNREACHABLE, HINT_NONE},
		{"KeyUnavailableException", KMS_UNREACHABLE, HINT_NONE},
		{"InternalFailure", KMS_UNREACHABLE, HINT_NONE},
		{"ServiceUnavailableException", KMS_UNREACHABLE, HINT_NONE},
		{"ServiceUnavailable", KMS_UNREACHABLE, HINT_NONE},
		{"DisabledException", KMS_DENIED, HINT_NONE},
		{"KMSInvalidStateException", KMS_DENIED, HINT_NONE},
		{"NotFoundException", KMS_DENIED, HINT_NONE},
		{"AccessDeniedException", KMS_DENIED, HINT_NONE},
		{"AccessDenied", KMS_DENIED, HINT_NONE},
		{"InvalidCiphertextException", KMS_CORRUPT, HINT_NONE},
		{"IncorrectKeyException", KMS_CORRUPT, HINT_NONE},
		{"ExpiredTokenException", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"ExpiredToken", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"UnrecognizedClientException", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"InvalidClientTokenId", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"InvalidSignatureException", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"IncompleteSignature", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"MissingAuthenticationTokenException", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"MissingAuthenticationToken", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD},
		{"RequestExpired", KMS_MISCONFIGURED, HINT_CREDENTIAL_DEAD}
	};
	KmsOutcome	outcome = status >= 500 ? KMS_UNREACHABLE : KMS_MISCONFIGURED;
	KmsHint		hint = HINT_NONE;

	for (int i = 0; i < lengthof(meanings); i++)
	{
		if (strcmp(code, meanings[i].code) == 0)
		{
			outcome = meanings[i].outcome;
			hint = meanings[i].hint;
		}
	}
	answer_set(answer, outcome, hint, "%sAWS KMS answered %.100s",
			   hint == HINT_CREDENTIAL_DEAD ? "credentials: " : "", code);
}

/* Take what answers a task. */
static bool
take_result(const KmsTask *task, const Json *doc, KmsAnswer *answer)
{
	const char *key_id = jdoc_text(doc, "KeyId");

	if (task->operation == KMS_CHECK)
		return true;
	if (task->operation == KMS_UNWRAP || task->operation == KMS_GENERATE)
	{
		if (base64_decode_exactly(jdoc_text(doc, "Plaintext"),
								  answer->dek.bytes, DEK_BYTES) != DEK_BYTES)
			return false;
	}
	if (task->operation == KMS_UNWRAP)
		return true;
	if (key_id == NULL || strlen(key_id) >= sizeof(answer->kek_version))
		return false;
	strlcpy(answer->kek_version, key_id, sizeof(answer->kek_version));
	answer->wrapped_len = base64_decode_exactly(jdoc_text(doc, "CiphertextBlob"),
												answer->wrapped, WRAPPED_DEK_MAX);
	return answer->wrapped_len > 0;
}

static void
aws_parse(const KmsTask *tasks, int ntasks, const HttpReply *reply, KmsAnswer *answers)
{
	KmsAnswer  *answer = &answers[0];
	Json	   *doc = jdoc_read(buffer_text(&reply->body), reply->body.len);
	char		code[HTTP_HEADER_MAX];

	if (reply->status == 200 && jdoc_is_object(doc))
	{
		if (take_result(&tasks[0], doc, answer))
			answer->outcome = KMS_OK;
		else
		{
			secret_wipe(answer, sizeof(*answer));
			answer_set(answer, tasks[0].operation == KMS_UNWRAP ? KMS_CORRUPT : KMS_UNREACHABLE,
					   HINT_NONE, "AWS KMS answered with what is no data key");
		}
	}
	else
	{
		take_code(reply, doc, code, sizeof(code));
		if (tasks[0].operation == KMS_CHECK && strncmp(code, "AccessDenied", 12) == 0)
		{
			answer_set(answer, KMS_OK, HINT_NONE, "kms:DescribeKey is not allowed");
			jdoc_free(doc);
			return;
		}
		if (reply->status >= 400 && code[0] != '\0')
			take_error(code, reply->status, answer);
		else
			answer_foreign_reply(answer, reply);
	}
	jdoc_free(doc);
}

const KmsProvider aws_provider = {
	.scheme = "aws-kms://",
	.uri_form = "aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID",
	.options = aws_options,
	.batch_max = 1,
	.check_uri = aws_check_uri,
	.service_len = aws_service_len,
	.tells_rights = true,
	.can_rewrap = aws_can_rewrap,
	.identify = aws_identify,
	.build = aws_build,
	.parse = aws_parse
};
