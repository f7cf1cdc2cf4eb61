/*-------------------------------------------------------------------------
 *
 * vault_credentials.c
 *	  Tokens for Vault: given, or had by logging in.
 *
 * A profile holds one of these; without a profile, VAULT_TOKEN or ~/.vault-token
 * is used, for the host of VAULT_ADDR alone:
 *
 *		token, token_file					a token that somebody else looks after
 *		role_id, secret_id[_file]			AppRole
 *		kubernetes_role, jwt_file			Kubernetes, by the pod's own token
 *		client_cert, client_key, cert_role	a TLS client certificate
 *
 * and auth_mount where the method is mounted elsewhere.  A token is renewed at
 * two thirds of its life; where Vault refuses that, or grants little more since
 * the maximum is near, we log in again.  Whether a token is dead or merely not
 * allowed something Vault tells by lookup-self.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/provider.h"
#include "kms/vault.h"

#define KUBERNETES_JWT	"/var/run/secrets/kubernetes.io/serviceaccount/token"

typedef enum Stage
{
	STAGE_START,
	STAGE_LOOK,					/* lookup-self was asked */
	STAGE_RENEW,				/* renew-self was asked */
	STAGE_LOG_IN,				/* to be asked */
	STAGE_LOGGED_IN,			/* was asked */
	STAGE_DONE
} Stage;

typedef enum Source
{
	SOURCE_TOKEN,
	SOURCE_APPROLE,
	SOURCE_KUBERNETES,
	SOURCE_CERT
} Source;

/* Without a profile: Vault's own variables */
static bool
load_environment(CredentialFetch *fetch)
{
	Credential *made = &fetch->made;
	const char *address = environment("VAULT_ADDR");
	const char *value;
	char		host[ADDRESS_MAX];
	char		path[MAXPGPATH];

	if (address == NULL || !url_host(address, host, sizeof(host)) ||
		strcmp(host, fetch->key->address) != 0)
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: the KEK names no profile, and VAULT_ADDR is not its host");
		return false;
	}
	buffer_set(&made->endpoint, address);
	buffer_printf(&made->hosts, "%s ", host);
	if ((value = environment("VAULT_CACERT")) != NULL)
		buffer_set(&made->ca_file, value);
	if ((value = environment("VAULT_CLIENT_CERT")) != NULL)
		buffer_set(&made->client_cert, value);
	if ((value = environment("VAULT_CLIENT_KEY")) != NULL)
		buffer_set(&made->client_key, value);
	if ((value = environment("VAULT_NAMESPACE")) != NULL)
		buffer_set(&made->name_space, value);

	fetch->source = SOURCE_TOKEN;
	if ((value = environment("VAULT_TOKEN")) != NULL)
	{
		buffer_set(&made->token, value);
		return true;
	}
	snprintf(path, sizeof(path), "%s/.vault-token",
			 environment("HOME") ? environment("HOME") : "");
	return fetch_file(fetch, path, "VAULT_TOKEN, which is not set, or the file .vault-token",
					  &made->token);
}

/* What a profile says */
static bool
load_profile(CredentialFetch *fetch, const Json *profile)
{
	Credential *made = &fetch->made;
	const char *text;

	fetch_take_common(fetch, profile);
	if (made->hosts.len == 0 && made->endpoint.len == 0)
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: the profile does not say to which hosts it may be sent");
		return false;
	}
	if ((text = jdoc_text(profile, "token")) !=NULL)
	{
		fetch->source = SOURCE_TOKEN;
		buffer_set(&made->token, text);
	}
	else if ((text = jdoc_text(profile, "token_file")) !=NULL)
	{
		fetch->source = SOURCE_TOKEN;
		return fetch_file(fetch, text, "the profile's token_file", &made->token);
	}
	else if (jdoc_text(profile, "role_id"))
		fetch->source = SOURCE_APPROLE;
	else if (jdoc_text(profile, "kubernetes_role"))
		fetch->source = SOURCE_KUBERNETES;
	else if (jdoc_text(profile, "client_cert"))
		fetch->source = SOURCE_CERT;
	else
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: the profile has neither token, token_file, role_id, kubernetes_role nor client_cert");
		return false;
	}
	return true;
}

/* The beginning of a request to Vault, to the host where it may go */
static bool
begin_request(CredentialFetch *fetch, HttpRequest *request, const char *method,
			  const char *path)
{
	vault_begin_request(request, method, fetch->key->address, &fetch->made);
	buffer_puts(&request->url, path);
	if (credential_may_go_to(&fetch->made, buffer_text(&request->url)))
		return true;
	fetch_fail(fetch, KMS_MISCONFIGURED,
			   "credentials: the profile may not be sent to the host of this KEK");
	return false;
}

/* Put into a body a text of the profile, or of the file that it names. */
static bool
put_secret(CredentialFetch *fetch, Json *body, const char *name, const char *text,
		   const char *file, const char *what)
{
	bool		ok = true;

	if (text == NULL && file != NULL)
	{
		if (!fetch_file(fetch, file, what, &fetch->scratch[0]))
			return false;
		text = buffer_text(&fetch->scratch[0]);
	}
	if (text)
		ok = jdoc_put_text(body, name, text);
	buffer_reset(&fetch->scratch[0]);
	if (!ok)
		fetch_fail(fetch, KMS_MISCONFIGURED, "credentials: %s is not a text", what);
	return ok;
}

/* Build the request to log in. */
static FetchStep
log_in(CredentialFetch *fetch, const Json *profile, HttpRequest *request)
{
	static const char *const mounts[] = {"", "approle", "kubernetes", "cert"};
	const char *mount = jdoc_text(profile, "auth_mount");
	const char *file = jdoc_text(profile, "jwt_file");
	Json	   *body = jdoc_new();
	char	   *text = NULL;
	char		path[256];
	bool		ok = false;

	switch ((Source) fetch->source)
	{
		case SOURCE_TOKEN:
			fetch_fail(fetch, KMS_MISCONFIGURED, "credentials: Vault does not take the token");
			break;
		case SOURCE_APPROLE:
			ok = put_secret(fetch, body, "role_id", jdoc_text(profile, "role_id"), NULL, "role_id") &&
				put_secret(fetch, body, "secret_id", jdoc_text(profile, "secret_id"),
						   jdoc_text(profile, "secret_id_file"), "the profile's secret_id_file");
			break;
		case SOURCE_KUBERNETES:
			ok = put_secret(fetch, body, "role", jdoc_text(profile, "kubernetes_role"), NULL,
							"kubernetes_role") &&
				put_secret(fetch, body, "jwt", NULL, file ? file : KUBERNETES_JWT,
						   "the file of the pod's token");
			break;
		case SOURCE_CERT:
			ok = put_secret(fetch, body, "name", jdoc_text(profile, "cert_role"), NULL, "cert_role");
			break;
	}
	if (ok)
	{
		buffer_reset(&fetch->made.token);
		snprintf(path, sizeof(path), "auth/%s/login", mount ? mount : mounts[fetch->source]);
		ok = begin_request(fetch, request, "POST", path);
	}
	if (ok && (text = jdoc_write(body)) !=NULL)
		buffer_puts(&request->body, text);
	jdoc_free_text(text);
	jdoc_free(body);
	fetch->stage = STAGE_LOGGED_IN;
	return ok ? FETCH_ASK : FETCH_FAILED;
}

/* Show the token that there is to lookup-self or renew-self. */
static FetchStep
ask_about_token(CredentialFetch *fetch, HttpRequest *request, bool renew)
{
	if (fetch->source != SOURCE_TOKEN)
		buffer_set(&fetch->made.token, buffer_text(&fetch->current->token));
	fetch->stage = renew ? STAGE_RENEW : STAGE_LOOK;
	if (renew)
		buffer_puts(&request->body, "{}");
	return begin_request(fetch, request, renew ? "POST" : "GET",
						 renew ? "auth/token/renew-self" : "auth/token/lookup-self") ?
		FETCH_ASK : FETCH_FAILED;
}

/*
 * The KEK's namespace, or else the profile's.  Where both name one, the KEK's
 * is the same or below it: what logs in there must not be shown to whoever runs
 * another.
 */
static bool
take_namespace(CredentialFetch *fetch)
{
	const char *wanted = fetch->key->name_space;
	const char *own = buffer_text(&fetch->made.name_space);
	size_t		len;

	wanted += strspn(wanted, "/");
	own += strspn(own, "/");
	len = strlen(own);
	while (len > 0 && own[len - 1] == '/')
		len--;
	if (wanted[0] == '\0')
		return true;
	if (len > 0 && (strncmp(wanted, own, len) != 0 ||
					(wanted[len] != '\0' && wanted[len] != '/')))
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: the profile may not be used in the namespace of this KEK");
		return false;
	}
	buffer_set(&fetch->made.name_space, wanted);
	return true;
}

static FetchStep
vault_next(CredentialFetch *fetch, HttpRequest *request)
{
	const Json *profile;
	bool		has_token;
	bool		same_token;

	if (fetch->stage == STAGE_DONE)
		return FETCH_DONE;
	if (!fetch_profile(fetch, &profile))
		return FETCH_FAILED;
	if (fetch->stage == STAGE_LOG_IN)
		return log_in(fetch, profile, request);

	if (!(profile ? load_profile(fetch, profile) : load_environment(fetch)))
		return FETCH_FAILED;
	if (!take_namespace(fetch))
		return FETCH_FAILED;

	has_token = fetch->current && fetch->current->token.len > 0;
	same_token = has_token && fetch->source == SOURCE_TOKEN &&
		strcmp(buffer_text(&fetch->made.token), buffer_text(&fetch->current->token)) == 0;
	if (has_token && !fetch->doubted && fetch->current->renewable &&
		(same_token || fetch->source != SOURCE_TOKEN))
		return ask_about_token(fetch, request, true);
	if (fetch->source == SOURCE_TOKEN || (has_token && fetch->doubted))
		return ask_about_token(fetch, request, false);
	return log_in(fetch, profile, request);
}

/* Note how long the token lives.  A lifetime of 0 is for ever. */
static void
take_lifetime(CredentialFetch *fetch, const Json *object, const char *name)
{
	int64		seconds = 0;

	if (jdoc_int(object, name, &seconds) && seconds > 0)
		fetch->made.lifetime_ms = Min(seconds, 1000000000) * 1000;
	fetch->made.renewable = jdoc_is_true(object, "renewable");
	fetch->stage = STAGE_DONE;
}

/*
 * Does a reply of status 403 say that the token lives, and may not do this?  Of
 * one that is dead or unknown Vault says that permission is denied without
 * counting errors, or counts two.
 */
static bool
is_forbidden(const Json *doc)
{
	const Json *errors = jdoc_get(doc, "errors");
	const char *error = jdoc_string(jdoc_item(errors, 0));

	return jdoc_length(errors) == 1 && error &&
		strncmp(error, "1 error occurred:", strlen("1 error occurred:")) == 0;
}

/* The reply to lookup-self */
static void
take_look(CredentialFetch *fetch, const HttpReply *reply, const Json *doc)
{
	const Json *data = jdoc_get(doc, "data");

	if (reply->answered && reply->status == 200 && jdoc_is_object(data))
		take_lifetime(fetch, data, "ttl");
	else if (reply->answered && reply->status == 403 && jdoc_get(doc, "errors"))
	{
		if (fetch->source != SOURCE_TOKEN)
			fetch->stage = STAGE_LOG_IN;
		else if (fetch->doubted && !is_forbidden(doc))
			fetch_fail(fetch, KMS_MISCONFIGURED,
					   "credentials: Vault does not take the token (lookup-self: permission denied)");
		else
		{
			fetch->made.finding = "the token may not look itself up (auth/token/lookup-self): how long it lives is not known, and it is not renewed";
			fetch->stage = STAGE_DONE;
		}
	}
	else
		fetch_foreign_reply(fetch, reply, "Vault's lookup-self");
}

/* The reply to renew-self */
static void
take_renewal(CredentialFetch *fetch, const HttpReply *reply, const Json *doc)
{
	const Json *auth = jdoc_get(doc, "auth");

	if (reply->answered && reply->status == 200 && jdoc_is_object(auth))
	{
		take_lifetime(fetch, auth, "lease_duration");
		if (fetch->source == SOURCE_TOKEN ||
			2 * fetch->made.lifetime_ms >= fetch->current->lifetime_ms)
			return;
		fetch->made.lifetime_ms = 0;
		fetch->stage = STAGE_LOG_IN;
	}
	else if (reply->answered && jdoc_get(doc, "errors") && fetch->source != SOURCE_TOKEN)
		fetch->stage = STAGE_LOG_IN;	/* also where Vault stumbles over a
										 * token that is being revoked */
	else
		fetch_foreign_reply(fetch, reply, "Vault's renew-self");
}

static void
vault_take(CredentialFetch *fetch, const HttpReply *reply)
{
	Json	   *doc = jdoc_read(buffer_text(&reply->body), reply->body.len);
	const Json *auth = jdoc_get(doc, "auth");
	const char *token = jdoc_text(auth, "client_token");

	switch ((Stage) fetch->stage)
	{
		case STAGE_LOOK:
			take_look(fetch, reply, doc);
			break;
		case STAGE_RENEW:
			take_renewal(fetch, reply, doc);
			break;
		case STAGE_LOGGED_IN:
			if (reply->answered && reply->status == 200 && token)
			{
				buffer_set(&fetch->made.token, token);
				take_lifetime(fetch, auth, "lease_duration");
			}
			else
				fetch_foreign_reply(fetch, reply, "Vault's login");
			break;
		case STAGE_START:
		case STAGE_LOG_IN:
		case STAGE_DONE:
			break;
	}
	jdoc_free(doc);
}

const CredentialKind vault_credentials = {
	.name = "Vault",
	.refresh_ahead_ms = PG_INT32_MAX,	/* the last third, however long */
	.next = vault_next,
	.take = vault_take
};
