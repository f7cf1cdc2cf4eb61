/*-------------------------------------------------------------------------
 *
 * vault.c
 *	  KEKs in HashiCorp Vault or OpenBao: hcvault://HOST/MOUNT/keys/NAME.
 *
 * They are keys of the Transit engine.  Tenant and key id go along as
 * "context", which binds a wrapped key to them where the key was made with
 * derived=true, and is ignored by Vault where it was not; such a key relies on
 * key_check alone.  A wrapped key is stored as Vault gives it, vault:vN:...,
 * and N is its version.
 *
 * Unwraps and re-wraps of one key go out as a batch.  Where an item of a batch
 * is bad the whole reply has status 400, and the results all the same.
 *
 * "encrypt" makes a key that is not there, if the policy allows to, so that a
 * typo would go unnoticed: the worker generates a data key first, which fails.
 *
 * What Vault answers is told by fixed words of ours: its own may repeat what
 * they were about.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "crypto/secret.h"
#include "kms/options.h"
#include "kms/provider.h"
#include "kms/vault.h"

#define WRAPPED_PREFIX		"vault:v"

static const char *const vault_options[] = {"namespace", "profile", NULL};

/* A URI taken apart */
typedef struct VaultKey
{
	char		address[ADDRESS_MAX];	/* host, and port if there is one */
	char		mount[256];
	char		name[128];
} VaultKey;

/* Letters, digits and a few more, at most max - 1 of them */
static bool
is_word(const char *text, size_t len, const char *more, size_t max)
{
	if (len == 0 || len >= max || text[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (!(text[i] >= 'a' && text[i] <= 'z') &&!(text[i] >= 'A' && text[i] <= 'Z') &&
			!(text[i] >= '0' && text[i] <= '9') &&strchr(more, text[i]) == NULL)
			return false;
	}
	return true;
}

/* HOST[:PORT]/MOUNT/keys/NAME, where MOUNT may have slashes */
static bool
parse_uri(const char *rest, VaultKey *key)
{
	const char *slash = strchr(rest, '/');
	const char *name = strrchr(rest, '/');
	const char *mount;
	size_t		mount_len;

	if (slash == NULL || name - slash < (int) strlen("/m/keys") ||
		strncmp(name - strlen("/keys"), "/keys", strlen("/keys")) != 0)
		return false;
	mount = slash + 1;
	mount_len = name - strlen("/keys") - mount;
	name++;
	if (!is_word(rest, slash - rest, "-.:[]", sizeof(key->address)) ||
		!is_word(mount, mount_len, "-_./", sizeof(key->mount)) ||
		!is_word(name, strlen(name), "-_.", sizeof(key->name)))
		return false;
	for (size_t i = 0; i < slash - rest; i++)
		key->address[i] = pg_tolower((unsigned char) rest[i]);
	key->address[slash - rest] = '\0';
	memcpy(key->mount, mount, mount_len);
	key->mount[mount_len] = '\0';
	strlcpy(key->name, name, sizeof(key->name));
	return strstr(key->mount, "..") == NULL && strstr(key->mount, "//") == NULL &&
		key->mount[0] != '/';
}

static bool
vault_check_uri(const char *rest)
{
	VaultKey	key;

	return parse_uri(rest, &key);
}

/* HOST[:PORT]/ */
static size_t
vault_service_len(const char *rest)
{
	size_t		len = strcspn(rest, "/");

	return rest[len] == '/' ? len + 1 : len;
}

/* Vault re-wraps under the newest version of the same key. */
static bool
vault_can_rewrap(const KmsTask *task)
{
	return strcmp(task->uri, task->target_uri) == 0 &&
		strcmp(task->options, task->target_options) == 0;
}

static bool
vault_identify(const KmsTask *task, CredentialKey *credential, KmsAnswer *answer)
{
	VaultKey	key;
	KekOption	options[] = {
		{"profile", credential->profile, sizeof(credential->profile)},
		{"namespace", credential->name_space, sizeof(credential->name_space)}
	};

	credential->kind = &vault_credentials;
	if (!parse_uri(kms_uri_rest(&vault_provider, task->uri), &key) ||
		!options_read(task->options, options, lengthof(options)))
	{
		answer_set(answer, KMS_MISCONFIGURED, HINT_NONE, "the KEK's URI or options are malformed");
		return false;
	}
	strlcpy(credential->address, key.address, sizeof(credential->address));
	return true;
}

/* The path of an operation, without the key's name */
static const char *
operation_path(KmsOperation operation)
{
	switch (operation)
	{
		case KMS_UNWRAP:
			return "decrypt";
		case KMS_GENERATE:
			return "datakey/plaintext";
		case KMS_WRAP:
			return "encrypt";
		case KMS_REWRAP:
			return "rewrap";
		case KMS_CHECK:
			break;
	}
	return "";
}

/*
 * Is it a text that Vault can have given?  Rows can be damaged, and one that is
 * must not keep others from being asked for in the same request.
 */
static bool
is_wrapped(const KmsTask *task)
{
	for (int i = 0; i < task->wrapped_len; i++)
	{
		if (task->wrapped[i] <= ' ' || task->wrapped[i] > '~')
			return false;
	}
	return task->wrapped_len > strlen(WRAPPED_PREFIX) &&
		memcmp(task->wrapped, WRAPPED_PREFIX, strlen(WRAPPED_PREFIX)) == 0;
}

static bool
must_be_wrapped(const KmsTask *task)
{
	return task->operation == KMS_UNWRAP || task->operation == KMS_REWRAP;
}

static void
not_wrapped(KmsAnswer *answer)
{
	answer_set(answer, KMS_CORRUPT, HINT_NONE, "the data key was not wrapped by Vault");
}

/* Put into a JSON object what is asked for by a task; false: out of memory. */
static bool
put_task(Json *object, const KmsTask *task)
{
	SecretBuffer context = {0};
	SecretBuffer encoded = {0};
	bool		ok;

	/*
	 * The id first, whose digits end at the slash: no two can be taken for
	 * each other.
	 */
	buffer_printf(&context, "envelope/1/%lld/%s", (long long) task->key_id, task->tenant);
	buffer_base64(&encoded, buffer_text(&context), context.len);
	ok = !encoded.failed && jdoc_put_text(object, "context", buffer_text(&encoded));
	buffer_reset(&encoded);

	if (task->operation == KMS_GENERATE)
		ok = ok && jdoc_put_int(object, "bits", 8 * DEK_BYTES);
	else if (task->operation == KMS_WRAP)
	{
		buffer_base64(&encoded, task->dek->bytes, DEK_BYTES);
		ok = ok && !encoded.failed && jdoc_put_text(object, "plaintext", buffer_text(&encoded));
	}
	else
	{
		if (is_wrapped(task))
			buffer_append(&encoded, task->wrapped, task->wrapped_len);
		ok = ok && !encoded.failed && jdoc_put_text(object, "ciphertext", buffer_text(&encoded));
	}
	buffer_reset(&encoded);
	buffer_reset(&context);
	return ok;
}

/* Paths of a key, by a capability on which it could be lost or made known */
typedef struct VaultRight
{
	const char *path;
	const char *capability;
	const char *means;
} VaultRight;

static const VaultRight rights[] = {
	{"keys", "delete", "delete the key"},
	{"keys", "root", "do everything (a root token)"},
	{"keys/*/config", "update", "change the key's configuration, and so allow its deletion"},
	{"keys/*/config", "create", "change the key's configuration, and so allow its deletion"},
	{"keys/*/trim", "update", "remove old versions of the key"},
	{"export/encryption-key", "read", "export the key"},
	{"backup", "read", "back up the key"},
	{"encrypt", "create", "make keys by encrypting (capability create)"}
};

/* The path of a right: MOUNT/PATH/NAME, or with the name in place of a star */
static void
right_path(const VaultRight *right, const VaultKey *key, char *path, size_t size)
{
	const char *star = strchr(right->path, '*');

	if (star)
		snprintf(path, size, "%s/%.*s%s%s", key->mount, (int) (star - right->path),
				 right->path, key->name, star + 1);
	else
		snprintf(path, size, "%s/%s/%s", key->mount, right->path, key->name);
}

/* Which capabilities the token has on all of these, for sys/capabilities-self */
static Json *
make_rights_body(const VaultKey *key)
{
	Json	   *body = jdoc_new();
	Json	   *paths = jdoc_new_array();
	char		path[sizeof(VaultKey)];
	bool		ok = body != NULL;

	for (int i = 0; i < lengthof(rights) && ok; i++)
	{
		right_path(&rights[i], key, path, sizeof(path));
		ok = jdoc_append_text(paths, path);
	}
	ok = jdoc_put(body, "paths", paths) && ok;
	if (ok)
		return body;
	jdoc_free(body);
	return NULL;
}

/* Tell what the token may do and should not. */
static void
take_rights(const VaultKey *key, const Json *data, KmsAnswer *answer)
{
	char		path[sizeof(VaultKey)];
	size_t		len = 0;

	answer->outcome = KMS_OK;
	for (int i = 0; i < lengthof(rights); i++)
	{
		const Json *held;

		right_path(&rights[i], key, path, sizeof(path));
		held = jdoc_get(data, path);
		for (size_t j = 0; j < jdoc_length(held); j++)
		{
			const char *capability = jdoc_string(jdoc_item(held, j));

			if (capability == NULL || strcmp(capability, rights[i].capability) != 0 ||
				strstr(answer->detail, rights[i].means) != NULL)
				continue;
			snprintf(answer->detail + len, sizeof(answer->detail) - len, "%s%s",
					 len == 0 ? "the token may do more than it needs: " : ", ",
					 rights[i].means);
			len = strlen(answer->detail);
		}
	}
}

/* The body: one item, or a batch */
static Json *
make_body(const KmsTask *tasks, int ntasks)
{
	Json	   *body = jdoc_new();
	Json	   *batch;
	bool		ok = body != NULL;

	if (ntasks == 1)
		ok = ok && put_task(body, &tasks[0]);
	else
	{
		batch = jdoc_new_array();
		for (int i = 0; i < ntasks && ok; i++)
		{
			Json	   *item = jdoc_new();

			ok = put_task(item, &tasks[i]);
			ok = jdoc_append(batch, item) && ok;
		}
		ok = jdoc_put(body, "batch_input", batch) && ok;
	}
	if (ok)
		return body;
	jdoc_free(body);
	return NULL;
}

/* The beginning of every request to Vault */
void
vault_begin_request(HttpRequest *request, const char *method, const char *address,
					const Credential *credential)
{
	size_t		len = credential->endpoint.len;

	request->method = method;
	if (len > 0)
	{
		while (len > 0 && credential->endpoint.data[len - 1] == '/')
			len--;
		buffer_append(&request->url, credential->endpoint.data, len);
	}
	else
		buffer_printf(&request->url, "https://%s", address);
	buffer_puts(&request->url, "/v1/");
	http_header(request, "X-Vault-Request", "true");
	http_header(request, "Content-Type", "application/json");
	if (credential->name_space.len > 0)
		http_header(request, "X-Vault-Namespace", credential->name_space.data);
	if (credential->token.len > 0)
		http_header(request, "X-Vault-Token", credential->token.data);
	buffer_puts(&request->ca_file, buffer_text(&credential->ca_file));
	buffer_puts(&request->client_cert, buffer_text(&credential->client_cert));
	buffer_puts(&request->client_key, buffer_text(&credential->client_key));
}

static bool
vault_build(const KmsTask *tasks, int ntasks, const Credential *credential,
			HttpRequest *request, KmsAnswer *answer)
{
	VaultKey	key;
	Json	   *body = NULL;
	char	   *text = NULL;

	if (!parse_uri(kms_uri_rest(&vault_provider, tasks[0].uri), &key))
	{
		answer_set(answer, KMS_MISCONFIGURED, HINT_NONE, "the KEK's URI is malformed");
		return false;
	}
	if (ntasks == 1 && must_be_wrapped(&tasks[0]) && !is_wrapped(&tasks[0]))
	{
		not_wrapped(answer);
		return false;
	}

	vault_begin_request(request, "POST", key.address, credential);
	if (tasks[0].operation == KMS_CHECK)
		buffer_puts(&request->url, "sys/capabilities-self");
	else
		buffer_printf(&request->url, "%s/%s/%s", key.mount,
					  operation_path(tasks[0].operation), key.name);
	body = tasks[0].operation == KMS_CHECK ? make_rights_body(&key) : make_body(tasks, ntasks);
	text = body ? jdoc_write(body) : NULL;

	if (text)
		buffer_puts(&request->body, text);
	jdoc_free_text(text);
	jdoc_free(body);
	if (text == NULL)
		answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "the request could not be put together");
	return text !=NULL;
}

/* The N of vault:vN:..., as text */
static bool
take_wrapped(const char *ciphertext, KmsAnswer *answer)
{
	size_t		len = ciphertext ? strlen(ciphertext) : 0;
	size_t		digits;

	if (len == 0 || len > WRAPPED_DEK_MAX ||
		strncmp(ciphertext, WRAPPED_PREFIX, strlen(WRAPPED_PREFIX)) != 0)
		return false;
	digits = strspn(ciphertext + strlen(WRAPPED_PREFIX), "0123456789");
	if (digits == 0 || digits > 10 || ciphertext[strlen(WRAPPED_PREFIX) + digits] != ':')
		return false;
	memcpy(answer->kek_version, ciphertext + strlen(WRAPPED_PREFIX), digits);
	answer->kek_version[digits] = '\0';
	memcpy(answer->wrapped, ciphertext, len);
	answer->wrapped_len = (int) len;
	return true;
}

/* Take what answers one task. */
static void
take_result(const KmsTask *task, const Json *result, KmsAnswer *answer)
{
	bool		with_key = task->operation == KMS_UNWRAP || task->operation == KMS_GENERATE;
	bool		ok = true;

	if (with_key)
		ok = base64_decode_exactly(jdoc_text(result, "plaintext"),
								   answer->dek.bytes, DEK_BYTES) == DEK_BYTES;
	if (task->operation != KMS_UNWRAP)
		ok = ok && take_wrapped(jdoc_text(result, "ciphertext"), answer);
	if (ok)
	{
		answer->outcome = KMS_OK;
		return;
	}
	secret_wipe(&answer->dek, sizeof(answer->dek));
	answer_set(answer, task->operation == KMS_UNWRAP ? KMS_CORRUPT : KMS_UNREACHABLE, HINT_NONE,
			   "Vault answered with what is no data key");
}

/* What Vault means by a message that comes with status 400 */
static void
take_message(const char *message, KmsAnswer *answer)
{
	if (message == NULL)
		message = "";
	if (strstr(message, "encryption key not found") ||
		strstr(message, "key not found") || strstr(message, "no existing key"))
		answer_set(answer, KMS_DENIED, HINT_NONE, "Vault has no key of this name");
	else if (strstr(message, "soft deleted") || strstr(message, "soft-deleted"))
		answer_set(answer, KMS_DENIED, HINT_NONE, "the key is soft-deleted in Vault");
	else if (strstr(message, "disallowed by policy"))
		answer_set(answer, KMS_DENIED, HINT_NONE,
				   "this version of the key is below the minimum that Vault allows");
	else if (strstr(message, "message authentication failed") ||
			 strstr(message, "invalid ciphertext") || strstr(message, "unable to decrypt"))
		answer_set(answer, KMS_CORRUPT, HINT_NONE,
				   "Vault did not wrap this data key for this tenant and key id");
	else
		answer_set(answer, KMS_MISCONFIGURED, HINT_NONE,
				   "Vault refused the request as malformed (HTTP status 400)");
}

/* A reply with errors of Vault's own */
static void
take_errors(const HttpReply *reply, const Json *errors, KmsAnswer *answer)
{
	switch (reply->status)
	{
		case 400:
			take_message(jdoc_string(jdoc_item(errors, 0)), answer);
			break;
		case 403:
			answer_set(answer, KMS_DENIED, HINT_CREDENTIAL_DOUBTED,
					   "Vault denied permission: the policy does not allow this, or the token is dead");
			break;
		case 404:
			answer_set(answer, KMS_MISCONFIGURED, HINT_NONE,
					   "Vault has no Transit engine at this mount");
			break;
		case 429:
			answer_set(answer, KMS_UNREACHABLE, HINT_THROTTLED, "Vault throttles (HTTP status 429)");
			break;
		case 503:
			answer_set(answer, KMS_UNREACHABLE, HINT_NONE, "Vault is sealed or in maintenance");
			break;
		default:
			answer_set(answer, reply->status >= 500 || reply->status == 412 ?
					   KMS_UNREACHABLE : KMS_MISCONFIGURED, HINT_NONE,
					   "Vault answered with HTTP status %ld", reply->status);
			break;
	}
}

static void
vault_parse(const KmsTask *tasks, int ntasks, const HttpReply *reply,
			KmsAnswer *answers)
{
	Json	   *doc = jdoc_read(buffer_text(&reply->body), reply->body.len);
	const Json *data = jdoc_get(doc, "data");
	const Json *results = jdoc_get(data, "batch_results");
	const Json *errors = jdoc_get(doc, "errors");
	const char *request_id = jdoc_text(doc, "request_id");
	VaultKey	key;
	bool		batch = ntasks > 1 && jdoc_length(results) == ntasks &&
		(reply->status == 200 || reply->status == 400);

	for (int i = 0; i < ntasks; i++)
	{
		KmsAnswer  *answer = &answers[i];
		const Json *result = batch ? jdoc_item(results, i) : data;
		const char *error = batch ? jdoc_text(result, "error") : NULL;

		if (request_id)
			strlcpy(answer->request_id, request_id, sizeof(answer->request_id));
		if (must_be_wrapped(&tasks[i]) && !is_wrapped(&tasks[i]))
			not_wrapped(answer);
		else if (tasks[i].operation == KMS_CHECK && reply->status == 200 &&
				 parse_uri(kms_uri_rest(&vault_provider, tasks[i].uri), &key))
			take_rights(&key, data, answer);
		else if (error && error[0] != '\0')
			take_message(error, answer);
		else if (batch || (ntasks == 1 && reply->status == 200 && jdoc_is_object(data)))
			take_result(&tasks[i], result, answer);
		else if (jdoc_get(doc, "errors") && reply->status >= 400)
			take_errors(reply, errors, answer);
		else
			answer_foreign_reply(answer, reply);
	}
	jdoc_free(doc);
}

const KmsProvider vault_provider = {
	.scheme = "hcvault://",
	.uri_form = "hcvault://HOST:PORT/MOUNT/keys/NAME",
	.options = vault_options,
	.batch_max = KMS_BATCH_MAX,
	.wrap_creates = true,
	.tells_rights = true,
	.check_uri = vault_check_uri,
	.service_len = vault_service_len,
	.can_rewrap = vault_can_rewrap,
	.identify = vault_identify,
	.build = vault_build,
	.parse = vault_parse
};
