/*-------------------------------------------------------------------------
 *
 * gcp_credentials.c
 *	  Access tokens for Google Cloud.
 *
 * The file that the profile's google_application_credentials names, or the
 * variable GOOGLE_APPLICATION_CREDENTIALS, or else gcloud's own file, is of one
 * of these types; without any, the metadata server is asked:
 *
 *		service_account		we sign a JWT with its key, and show it
 *		authorized_user		its refresh token is shown (gcloud's own file)
 *		external_account	a token of another provider, in a file or to be had
 *							from a URL, is exchanged; then a service account is
 *							impersonated, if it says so
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>
#include <unistd.h>

#include "crypto/sign.h"
#include "kms/aws.h"
#include "kms/provider.h"

#define SCOPE				"https://www.googleapis.com/auth/cloudkms"
#define TOKEN_URI			"https://oauth2.googleapis.com/token"
#define METADATA_HOST		"metadata.google.internal"
#define METADATA_PATH		"/computeMetadata/v1/instance/service-accounts/default/token"
#define JWT_LIFETIME_S		3600
#define HEADER_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
/* Signed as of so long ago, since our clock may be ahead */
#define JWT_EARLIER_S		120

typedef enum Stage
{
	STAGE_START,
	STAGE_TOKEN,				/* the last thing was asked */
	STAGE_SUBJECT,				/* the other provider's token was asked */
	STAGE_EXCHANGE,				/* to be asked, with that token in scratch */
	STAGE_EXCHANGED,			/* was asked */
	STAGE_IMPERSONATE,			/* to be asked */
	STAGE_IMPERSONATED,			/* was asked */
	STAGE_DONE
} Stage;

/* What is in fetch->scratch */
#define SUBJECT_TOKEN	0
#define FILE_TEXT		1

static void
put_field(HttpRequest *request, const char *name, const char *value)
{
	buffer_printf(&request->body, "%s%s=", request->body.len > 0 ? "&" : "", name);
	buffer_escape(&request->body, value);
}

static void
begin_form(CredentialFetch *fetch, HttpRequest *request, const char *url)
{
	request->method = "POST";
	buffer_puts(&request->url, url);
	buffer_puts(&request->ca_file, buffer_text(&fetch->made.ca_file));
	http_header(request, "Content-Type", "application/x-www-form-urlencoded");
}

/* Append a JSON object in base64url. */
static bool
append_part(SecretBuffer *jwt, Json *object)
{
	char	   *text = jdoc_write(object);
	bool		ok = text !=NULL;

	if (ok)
		buffer_base64url(jwt, text, strlen(text));
	jdoc_free_text(text);
	jdoc_free(object);
	return ok;
}

/* The JWT by which a service account asks for a token */
static bool
make_jwt(const Json *account, const char *audience, int64 now, SecretBuffer *jwt)
{
	const char *key = jdoc_text(account, "private_key");
	const char *key_id = jdoc_text(account, "private_key_id");
	Json	   *header = jdoc_new();
	Json	   *claims = jdoc_new();
	uint8		signature[RS256_MAX_BYTES];
	size_t		len;
	bool		ok;

	ok = jdoc_put_text(header, "alg", "RS256") && jdoc_put_text(header, "typ", "JWT") &&
		(key_id == NULL || jdoc_put_text(header, "kid", key_id)) &&
		jdoc_put_text(claims, "iss", jdoc_text(account, "client_email")) &&
		jdoc_put_text(claims, "scope", SCOPE) && jdoc_put_text(claims, "aud", audience) &&
		jdoc_put_int(claims, "iat", now - JWT_EARLIER_S) &&
		jdoc_put_int(claims, "exp", now - JWT_EARLIER_S + JWT_LIFETIME_S);
	ok = append_part(jwt, header) && ok;
	buffer_puts(jwt, ".");
	ok = append_part(jwt, claims) && ok;
	ok = ok && !jwt->failed && key &&
		sign_rs256(key, buffer_text(jwt), jwt->len, signature, &len);
	buffer_puts(jwt, ".");
	if (ok)
		buffer_base64url(jwt, signature, len);
	return ok && !jwt->failed;
}

static FetchStep
ask_as_service_account(CredentialFetch *fetch, HttpRequest *request, const Json *account)
{
	const char *uri = jdoc_text(account, "token_uri");
	SecretBuffer jwt = {0};
	bool		ok;

	if (uri == NULL)
		uri = TOKEN_URI;
	begin_form(fetch, request, uri);
	ok = make_jwt(account, uri, (int64) time(NULL), &jwt);
	put_field(request, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
	put_field(request, "assertion", buffer_text(&jwt));
	buffer_reset(&jwt);
	fetch->stage = STAGE_TOKEN;
	if (ok)
		return FETCH_ASK;
	fetch_fail(fetch, KMS_MISCONFIGURED,
			   "credentials: the service account's file has no client_email, or no private_key that can sign");
	return FETCH_FAILED;
}

static FetchStep
ask_as_user(CredentialFetch *fetch, HttpRequest *request, const Json *user)
{
	const char *uri = jdoc_text(user, "token_uri");
	const char *id = jdoc_text(user, "client_id");
	const char *secret = jdoc_text(user, "client_secret");
	const char *token = jdoc_text(user, "refresh_token");

	if (id == NULL || secret == NULL || token == NULL)
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: gcloud's file has no client_id, client_secret or refresh_token");
		return FETCH_FAILED;
	}
	begin_form(fetch, request, uri ? uri : TOKEN_URI);
	put_field(request, "grant_type", "refresh_token");
	put_field(request, "client_id", id);
	put_field(request, "client_secret", secret);
	put_field(request, "refresh_token", token);
	fetch->stage = STAGE_TOKEN;
	return FETCH_ASK;
}

/* Take the other provider's token out of what its file or URL holds. */
static bool
take_subject(CredentialFetch *fetch, const Json *account, const char *text, size_t len)
{
	const Json *format = jdoc_get(jdoc_get(account, "credential_source"), "format");
	const char *type = jdoc_text(format, "type");
	const char *field = jdoc_text(format, "subject_token_field_name");
	SecretBuffer *subject = &fetch->scratch[SUBJECT_TOKEN];
	Json	   *doc;

	if (type == NULL || strcmp(type, "json") != 0)
		buffer_set(subject, text);
	else
	{
		doc = jdoc_read(text, len);
		text = field ? jdoc_text(doc, field) : NULL;

		buffer_set(subject, text ? text : "");
		jdoc_free(doc);
	}
	if (subject->len > 0)
		return true;
	fetch_fail(fetch, KMS_MISCONFIGURED,
			   "credentials: the credential_source of the external_account has no token");
	return false;
}

/* Add a header that the provider of the token wants. */
static void
put_header(const char *name, const Json *value, void *request)
{
	const char *text = jdoc_string(value);

	if (text &&name[0] != '\0' && strspn(name, HEADER_CHARS) == strlen(name))
		http_header(request, name, text);
}

/* Ask for the other provider's token, or read it. */
static FetchStep
ask_subject(CredentialFetch *fetch, HttpRequest *request, const Json *account)
{
	const Json *source = jdoc_get(account, "credential_source");
	const Json *headers = jdoc_get(source, "headers");
	const char *file = jdoc_text(source, "file");
	const char *url = jdoc_text(source, "url");
	SecretBuffer text = {0};
	bool		ok;

	if (jdoc_text(source, "environment_id") || (file == NULL && url == NULL))
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: an external_account of type %s is not supported; its credential_source must be a file or url",
				   jdoc_get(source, "executable") ? "executable" :
				   jdoc_text(source, "environment_id") ? "aws" : "unknown");
		return FETCH_FAILED;
	}
	if (file)
	{
		ok = fetch_file(fetch, file, "the file of the external_account's token", &text) &&
			take_subject(fetch, account, buffer_text(&text), text.len);
		buffer_reset(&text);
		fetch->stage = STAGE_EXCHANGE;
		return ok ? FETCH_DONE : FETCH_FAILED;
	}
	request->method = "GET";
	request->metadata = strncmp(url, "http://", 7) == 0;
	buffer_puts(&request->url, url);
	if (jdoc_is_object(headers))
		jdoc_each(headers, put_header, request);
	fetch->stage = STAGE_SUBJECT;
	return FETCH_ASK;
}

static FetchStep
ask_exchange(CredentialFetch *fetch, HttpRequest *request, const Json *account)
{
	const char *url = jdoc_text(account, "token_url");
	const char *audience = jdoc_text(account, "audience");
	const char *type = jdoc_text(account, "subject_token_type");

	if (url == NULL || audience == NULL || type == NULL)
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: the external_account has no token_url, audience or subject_token_type");
		return FETCH_FAILED;
	}
	begin_form(fetch, request, url);
	put_field(request, "grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
	put_field(request, "requested_token_type", "urn:ietf:params:oauth:token-type:access_token");
	put_field(request, "audience", audience);
	put_field(request, "scope", "https://www.googleapis.com/auth/cloud-platform");
	put_field(request, "subject_token_type", type);
	put_field(request, "subject_token", buffer_text(&fetch->scratch[SUBJECT_TOKEN]));
	fetch->stage = STAGE_EXCHANGED;
	return FETCH_ASK;
}

static FetchStep
ask_impersonation(CredentialFetch *fetch, HttpRequest *request, const char *url)
{
	request->method = "POST";
	buffer_puts(&request->url, url);
	http_header(request, "Content-Type", "application/json");
	http_bearer(request, buffer_text(&fetch->made.token));
	buffer_puts(&request->body, "{\"scope\":[\"" SCOPE "\"]}");
	fetch->stage = STAGE_IMPERSONATED;
	return FETCH_ASK;
}

static FetchStep
ask_metadata(CredentialFetch *fetch, HttpRequest *request)
{
	const char *host = environment("GCE_METADATA_HOST");

	request->method = "GET";
	request->metadata = true;
	buffer_printf(&request->url, "http://%s%s", host ? host : METADATA_HOST, METADATA_PATH);
	http_header(request, "Metadata-Flavor", "Google");
	fetch->stage = STAGE_TOKEN;
	return FETCH_ASK;
}

/* Find the file that holds the credential, and read it into scratch. */
static bool
read_credential_file(CredentialFetch *fetch, const Json *profile)
{
	SecretBuffer *text = &fetch->scratch[FILE_TEXT];
	const char *path = jdoc_text(profile, "google_application_credentials");
	const char *folder = environment("CLOUDSDK_CONFIG");
	const char *home = environment("HOME");
	char		built[MAXPGPATH];

	if (path == NULL)
		path = environment("GOOGLE_APPLICATION_CREDENTIALS");
	if (path)
		return fetch_file(fetch, path, "the file of Google's application credentials", text);
	if (folder)
		snprintf(built, sizeof(built), "%s/application_default_credentials.json", folder);
	else
		snprintf(built, sizeof(built), "%s/.config/gcloud/application_default_credentials.json",
				 home ? home : "");
	if (access(built, F_OK) != 0)
		return true;
	return fetch_file(fetch, built, "gcloud's file of application credentials", text);
}

/* Ask for what comes first with this file. */
static FetchStep
ask_by_file(CredentialFetch *fetch, HttpRequest *request, const Json *file)
{
	const char *type = jdoc_text(file, "type");
	FetchStep	step;

	if (type && strcmp(type, "service_account") == 0)
		return ask_as_service_account(fetch, request, file);
	if (type && strcmp(type, "authorized_user") == 0)
		return ask_as_user(fetch, request, file);
	if (type && strcmp(type, "external_account") == 0)
	{
		step = ask_subject(fetch, request, file);
		return step == FETCH_DONE ? ask_exchange(fetch, request, file) : step;
	}
	fetch_fail(fetch, KMS_MISCONFIGURED,
			   "credentials: the file of Google's application credentials is of type \"%.40s\", which is not supported",
			   type ? type : "");
	return FETCH_FAILED;
}

static FetchStep
gcp_next(CredentialFetch *fetch, HttpRequest *request)
{
	SecretBuffer *text = &fetch->scratch[FILE_TEXT];
	const Json *profile;
	const char *url;
	Json	   *file = NULL;
	FetchStep	step = FETCH_DONE;

	if (fetch->stage == STAGE_START)
	{
		if (!fetch_profile(fetch, &profile))
			return FETCH_FAILED;
		if (profile)
			fetch_take_common(fetch, profile);
		if (!read_credential_file(fetch, profile))
			return FETCH_FAILED;
		if (text->len == 0)
			return ask_metadata(fetch, request);
	}
	if (text->len > 0 && fetch->stage != STAGE_DONE)
	{
		file = jdoc_read(text->data, text->len);
		url = jdoc_text(file, "service_account_impersonation_url");
		if (fetch->stage == STAGE_START)
			step = ask_by_file(fetch, request, file);
		else if (fetch->stage == STAGE_EXCHANGE)
			step = ask_exchange(fetch, request, file);
		else if (fetch->stage == STAGE_IMPERSONATE && url)
			step = ask_impersonation(fetch, request, url);
		jdoc_free(file);
	}
	return step;
}

/* A reply with an access token */
static bool
take_token(CredentialFetch *fetch, const HttpReply *reply, const Json *doc, const char *what)
{
	const char *token = jdoc_text(doc, "access_token");
	int64		seconds = 0;

	if (!reply->answered || reply->status != 200 || token == NULL)
	{
		fetch_foreign_reply(fetch, reply, what);
		return false;
	}
	buffer_set(&fetch->made.token, token);
	if (jdoc_int(doc, "expires_in", &seconds) && seconds > 0)
		fetch->made.lifetime_ms = Min(seconds, 1000000) * 1000;
	return true;
}

static void
gcp_take(CredentialFetch *fetch, const HttpReply *reply)
{
	const char *body = buffer_text(&reply->body);
	SecretBuffer *text = &fetch->scratch[FILE_TEXT];
	Json	   *doc = jdoc_read(body, reply->body.len);
	Json	   *file;
	const char *token;

	switch ((Stage) fetch->stage)
	{
		case STAGE_TOKEN:
			if (take_token(fetch, reply, doc, text->len > 0 ? "Google's token endpoint" :
						   "there is no file of application credentials, and Google's metadata server"))
				fetch->stage = STAGE_DONE;
			break;
		case STAGE_SUBJECT:
			if (reply->answered && reply->status == 200)
			{
				file = jdoc_read(text->data, text->len);
				if (take_subject(fetch, file, body, reply->body.len))
					fetch->stage = STAGE_EXCHANGE;
				jdoc_free(file);
			}
			else
				fetch_foreign_reply(fetch, reply, "the URL of the external_account's token");
			break;
		case STAGE_EXCHANGED:
			if (take_token(fetch, reply, doc, "the exchange of the external_account's token"))
				fetch->stage = STAGE_IMPERSONATE;
			break;
		case STAGE_IMPERSONATED:
			token = jdoc_text(doc, "accessToken");
			if (reply->answered && reply->status == 200 && token)
			{
				buffer_set(&fetch->made.token, token);
				fetch->made.lifetime_ms = lifetime_of(jdoc_text(doc, "expireTime"), reply->date);
				fetch->stage = STAGE_DONE;
			}
			else
				fetch_foreign_reply(fetch, reply, "impersonating the service account");
			break;
		default:
			break;
	}
	jdoc_free(doc);
}

const CredentialKind gcp_credentials = {
	.name = "Google",
	.refresh_ahead_ms = 5 * 60 * 1000,
	.next = gcp_next,
	.take = gcp_take
};
