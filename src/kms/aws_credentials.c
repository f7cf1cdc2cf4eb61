/*-------------------------------------------------------------------------
 *
 * aws_credentials.c
 *	  Credentials for AWS: the ordinary chain, and roles to assume.
 *
 * A profile of envelope.credentials_file may hold aws_access_key_id,
 * aws_secret_access_key and aws_session_token, or web_identity_token_file and
 * role_arn; or name a profile of AWS's own files, aws_profile.  Where there is no
 * profile, or none of these in it, the chain of AWS's clients is followed:
 *
 *		environment, profile files, web identity, container, EC2 (IMDSv2)
 *
 * Then the role of the profile is assumed, if there is one, and then that of the
 * KEK, with its external id.  Endpoints are overridden as in AWS's clients; a
 * profile may name endpoint and sts_endpoint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/aws.h"
#include "kms/provider.h"

#define METADATA_SERVICE	"http://169.254.169.254"
#define CONTAINER_SERVICE	"http://169.254.170.2"
#define METADATA_TOKEN_S	"21600"
#define SESSION_NAME		"envelope"

typedef enum Stage
{
	STAGE_START,
	STAGE_WEB_IDENTITY,			/* was asked */
	STAGE_CONTAINER,			/* was asked */
	STAGE_IMDS_TOKEN,			/* was asked */
	STAGE_IMDS_ROLE,			/* to be asked; with the token */
	STAGE_IMDS_ROLE_ASKED,
	STAGE_IMDS_KEYS,			/* to be asked; for the role */
	STAGE_IMDS_KEYS_ASKED,
	STAGE_ASSUME,				/* to be asked: what is left to assume */
	STAGE_ASSUME_FIRST,			/* the profile's role was asked */
	STAGE_ASSUME_KEK,			/* the KEK's role was asked */
	STAGE_DONE
} Stage;

/* What is in fetch->scratch */
#define ROLE			0		/* of the profile: ARN, a space, external id */
#define METADATA_TOKEN	1
#define METADATA_ROLE	2

static bool
keys_from_texts(CredentialFetch *fetch, const char *id, const char *secret,
				const char *token)
{
	if (id == NULL || secret == NULL)
		return false;
	buffer_set(&fetch->made.access_key, id);
	buffer_set(&fetch->made.secret_key, secret);
	buffer_set(&fetch->made.token, token ? token : "");
	return true;
}

/* Where STS is asked */
static void
put_sts_url(CredentialFetch *fetch, HttpRequest *request)
{
	char		unused[256];
	const Json *profile = profile_find(fetch->key->profile, unused, sizeof(unused));
	const char *endpoint = jdoc_text(profile, "sts_endpoint");

	if (endpoint || (endpoint = environment("AWS_ENDPOINT_URL_STS")) != NULL ||
		(endpoint = environment("AWS_ENDPOINT_URL")) != NULL)
		buffer_puts(&request->url, endpoint);
	else
		buffer_printf(&request->url, "https://sts.%s.%s", fetch->key->address,
					  aws_domain(fetch->key->address));
	if (request->url.len > 0 && request->url.data[request->url.len - 1] != '/')
		buffer_puts(&request->url, "/");
	buffer_puts(&request->ca_file, buffer_text(&fetch->made.ca_file));
	request->method = "POST";
	http_header(request, "Content-Type", "application/x-www-form-urlencoded");
}

static void
put_field(HttpRequest *request, const char *name, const char *value)
{
	buffer_printf(&request->body, "&%s=", name);
	buffer_escape(&request->body, value);
}

/* Show a token of the environment's identity provider to STS. */
static FetchStep
ask_web_identity(CredentialFetch *fetch, HttpRequest *request, const char *role,
				 const char *file)
{
	SecretBuffer token = {0};

	if (!fetch_file(fetch, file, "the web identity token file", &token))
		return FETCH_FAILED;
	put_sts_url(fetch, request);
	buffer_puts(&request->body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
	put_field(request, "RoleArn", role);
	put_field(request, "RoleSessionName", SESSION_NAME);
	put_field(request, "WebIdentityToken", buffer_text(&token));
	buffer_reset(&token);
	fetch->stage = STAGE_WEB_IDENTITY;
	return FETCH_ASK;
}

/* Assume a role with the keys that there are. */
static FetchStep
ask_assume(CredentialFetch *fetch, HttpRequest *request, const char *role,
		   const char *external_id)
{
	put_sts_url(fetch, request);
	buffer_puts(&request->body, "Action=AssumeRole&Version=2011-06-15");
	put_field(request, "RoleArn", role);
	put_field(request, "RoleSessionName", SESSION_NAME);
	if (external_id[0] != '\0')
		put_field(request, "ExternalId", external_id);
	buffer_printf(&request->sigv4, "aws:amz:%s:sts", fetch->key->address);
	buffer_puts(&request->access_key, buffer_text(&fetch->made.access_key));
	buffer_puts(&request->secret_key, buffer_text(&fetch->made.secret_key));
	if (fetch->made.token.len > 0)
		http_header(request, "X-Amz-Security-Token", fetch->made.token.data);
	return FETCH_ASK;
}

/* The keys are there: assume what is to be assumed. */
static FetchStep
assume_roles(CredentialFetch *fetch, HttpRequest *request)
{
	if (fetch->scratch[ROLE].len > 0)
	{
		char	   *space = strchr(fetch->scratch[ROLE].data, ' ');

		fetch->stage = STAGE_ASSUME_FIRST;
		if (space)
			*space = '\0';
		return ask_assume(fetch, request, fetch->scratch[ROLE].data, space ? space + 1 : "");
	}
	if (fetch->key->role[0] != '\0')
	{
		fetch->stage = STAGE_ASSUME_KEK;
		return ask_assume(fetch, request, fetch->key->role, fetch->key->external_id);
	}
	return FETCH_DONE;
}

/* Build a request to a service of this machine. */
static FetchStep
ask_metadata(CredentialFetch *fetch, HttpRequest *request, const char *method,
			 const char *path, const char *role)
{
	const char *service = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");

	request->method = method;
	request->metadata = true;
	buffer_puts(&request->url, service ? service : METADATA_SERVICE);
	while (request->url.len > 0 && request->url.data[request->url.len - 1] == '/')
		request->url.data[--request->url.len] = '\0';
	buffer_puts(&request->url, path);
	buffer_puts(&request->url, role);
	if (fetch->scratch[METADATA_TOKEN].len > 0)
		http_header(request, "X-aws-ec2-metadata-token", fetch->scratch[METADATA_TOKEN].data);
	else
		http_header(request, "X-aws-ec2-metadata-token-ttl-seconds", METADATA_TOKEN_S);
	return FETCH_ASK;
}

/* The container's service, by the variables that it was given */
static FetchStep
ask_container(CredentialFetch *fetch, HttpRequest *request)
{
	const char *relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const char *token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	const char *file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	SecretBuffer contents = {0};

	if (file)
	{
		if (!fetch_file(fetch, file, "the container's authorization token file", &contents))
			return FETCH_FAILED;
		token = buffer_text(&contents);
	}
	request->method = "GET";
	request->metadata = true;
	if (relative)
		buffer_printf(&request->url, "%s%s%s", CONTAINER_SERVICE,
					  relative[0] == '/' ? "" : "/", relative);
	else
		buffer_puts(&request->url, full);
	if (token)
		http_header(request, "Authorization", token);
	buffer_reset(&contents);
	fetch->stage = STAGE_CONTAINER;
	return FETCH_ASK;
}

static FetchStep
ask_first_metadata(CredentialFetch *fetch, HttpRequest *request)
{
	fetch->stage = STAGE_IMDS_TOKEN;
	return ask_metadata(fetch, request, "PUT", "/latest/api/token", "");
}

/* Read one of AWS's own files, if it is there. */
static void
read_aws_file(CredentialFetch *fetch, const char *variable, const char *name,
			  SecretBuffer *text)
{
	const char *path = environment(variable);
	const char *home = environment("HOME");
	char		built[MAXPGPATH];

	if (path == NULL)
	{
		snprintf(built, sizeof(built), "%s/.aws/%s", home ? home : "", name);
		path = built;
	}
	if (!fetch_file(fetch, path, "", text))
		fetch->outcome = KMS_OK;	/* it need not be there */
}

/* AWS's files, and a profile in them */
typedef struct AwsFiles
{
	SecretBuffer credentials;
	SecretBuffer config;
	char		profile[128];
} AwsFiles;

/* A value of a profile: the credentials file first, then the config file. */
static bool
file_value(const AwsFiles *files, const char *profile, const char *key, SecretBuffer *value)
{
	char		section[160];

	if (ini_get(buffer_text(&files->credentials), profile, key, value))
		return true;
	snprintf(section, sizeof(section), strcmp(profile, "default") == 0 ? "%s" : "profile %s",
			 profile);
	return ini_get(buffer_text(&files->config), section, key, value);
}

/* Static keys of a profile of AWS's files */
static bool
keys_from_files(CredentialFetch *fetch, const AwsFiles *files, const char *profile)
{
	Credential *made = &fetch->made;
	bool		ok = file_value(files, profile, "aws_access_key_id", &made->access_key) &&
		file_value(files, profile, "aws_secret_access_key", &made->secret_key);

	(void) file_value(files, profile, "aws_session_token", &made->token);
	return ok;
}

/* Follow a profile of AWS's files.  FETCH_DONE: it has nothing to say. */
static FetchStep
follow_files(CredentialFetch *fetch, HttpRequest *request, const AwsFiles *files)
{
	SecretBuffer role = {0};
	SecretBuffer value = {0};
	FetchStep	step = FETCH_DONE;

	if (fetch->made.endpoint.len == 0 &&
		file_value(files, files->profile, "endpoint_url", &value))
		buffer_set(&fetch->made.endpoint, buffer_text(&value));

	if (file_value(files, files->profile, "credential_process", &value))
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: credential_process of AWS's profile files is not supported");
		step = FETCH_FAILED;
	}
	else if (!file_value(files, files->profile, "role_arn", &role))
	{
		if (keys_from_files(fetch, files, files->profile))
			step = assume_roles(fetch, request);
		fetch->source = fetch->made.access_key.len > 0;
	}
	else if (file_value(files, files->profile, "web_identity_token_file", &value))
	{
		step = ask_web_identity(fetch, request, buffer_text(&role), buffer_text(&value));
		fetch->source = 1;
	}
	else
	{
		buffer_set(&fetch->scratch[ROLE], buffer_text(&role));
		if (file_value(files, files->profile, "external_id", &value))
			buffer_printf(&fetch->scratch[ROLE], " %s", buffer_text(&value));
		if (file_value(files, files->profile, "source_profile", &value) &&
			keys_from_files(fetch, files, buffer_text(&value)))
			step = assume_roles(fetch, request);
		else if (file_value(files, files->profile, "credential_source", &value) &&
				 strcmp(buffer_text(&value), "Ec2InstanceMetadata") == 0)
			step = ask_first_metadata(fetch, request);
		else if (strcmp(buffer_text(&value), "EcsContainer") == 0)
			step = ask_container(fetch, request);
		else if (strcmp(buffer_text(&value), "Environment") == 0 &&
				 keys_from_texts(fetch, environment("AWS_ACCESS_KEY_ID"),
								 environment("AWS_SECRET_ACCESS_KEY"),
								 environment("AWS_SESSION_TOKEN")))
			step = assume_roles(fetch, request);
		else
		{
			fetch_fail(fetch, KMS_MISCONFIGURED,
					   "credentials: the profile of AWS's files has a role_arn, but no keys to assume it with");
			step = FETCH_FAILED;
		}
		fetch->source = 1;
	}
	buffer_reset(&role);
	buffer_reset(&value);
	return step;
}

/* Take the keys of the profile files, if they have any for us. */
static FetchStep
use_files(CredentialFetch *fetch, HttpRequest *request, const char *profile)
{
	AwsFiles	files = {0};
	const char *name = profile;
	FetchStep	step;

	if (name == NULL && (name = environment("AWS_PROFILE")) == NULL)
		name = "default";
	strlcpy(files.profile, name, sizeof(files.profile));
	read_aws_file(fetch, "AWS_SHARED_CREDENTIALS_FILE", "credentials", &files.credentials);
	read_aws_file(fetch, "AWS_CONFIG_FILE", "config", &files.config);
	fetch->source = 0;
	step = follow_files(fetch, request, &files);
	buffer_reset(&files.credentials);
	buffer_reset(&files.config);
	return step;
}

/* The chain of AWS's clients */
static FetchStep
follow_chain(CredentialFetch *fetch, HttpRequest *request, const char *aws_profile)
{
	const char *disabled = environment("AWS_EC2_METADATA_DISABLED");
	FetchStep	step;

	if (aws_profile == NULL &&
		keys_from_texts(fetch, environment("AWS_ACCESS_KEY_ID"),
						environment("AWS_SECRET_ACCESS_KEY"),
						environment("AWS_SESSION_TOKEN")))
		return assume_roles(fetch, request);
	step = use_files(fetch, request, aws_profile);
	if (fetch->source != 0 || step == FETCH_FAILED)
		return step;
	if (aws_profile)
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: AWS's files have no keys for the profile that is named");
		return FETCH_FAILED;
	}
	if (environment("AWS_WEB_IDENTITY_TOKEN_FILE") && environment("AWS_ROLE_ARN"))
		return ask_web_identity(fetch, request, environment("AWS_ROLE_ARN"),
								environment("AWS_WEB_IDENTITY_TOKEN_FILE"));
	if (environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") ||
		environment("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
		return ask_container(fetch, request);
	if (disabled && pg_strcasecmp(disabled, "true") == 0)
	{
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: neither environment, profile files, web identity nor container have any, and AWS_EC2_METADATA_DISABLED is set");
		return FETCH_FAILED;
	}
	return ask_first_metadata(fetch, request);
}

/* Begin: what the profile says, or the chain */
static FetchStep
begin(CredentialFetch *fetch, HttpRequest *request)
{
	const Json *profile;
	const char *role;
	const char *external_id;
	const char *endpoint;

	if (!fetch_profile(fetch, &profile))
		return FETCH_FAILED;
	if (profile)
		fetch_take_common(fetch, profile);
	if (fetch->made.endpoint.len == 0 &&
		((endpoint = environment("AWS_ENDPOINT_URL_KMS")) != NULL ||
		 (endpoint = environment("AWS_ENDPOINT_URL")) != NULL))
		buffer_set(&fetch->made.endpoint, endpoint);

	role = jdoc_text(profile, "role_arn");
	external_id = jdoc_text(profile, "external_id");
	if (role && jdoc_text(profile, "web_identity_token_file"))
		return ask_web_identity(fetch, request, role,
								jdoc_text(profile, "web_identity_token_file"));
	if (role)
		buffer_printf(&fetch->scratch[ROLE], "%s %s", role, external_id ? external_id : "");
	if (keys_from_texts(fetch, jdoc_text(profile, "aws_access_key_id"),
						jdoc_text(profile, "aws_secret_access_key"),
						jdoc_text(profile, "aws_session_token")))
		return assume_roles(fetch, request);
	return follow_chain(fetch, request, jdoc_text(profile, "aws_profile"));
}

static FetchStep
aws_next(CredentialFetch *fetch, HttpRequest *request)
{
	switch ((Stage) fetch->stage)
	{
		case STAGE_START:
			return begin(fetch, request);
		case STAGE_IMDS_ROLE:
			fetch->stage = STAGE_IMDS_ROLE_ASKED;
			return ask_metadata(fetch, request, "GET",
								"/latest/meta-data/iam/security-credentials/", "");
		case STAGE_IMDS_KEYS:
			fetch->stage = STAGE_IMDS_KEYS_ASKED;
			return ask_metadata(fetch, request, "GET",
								"/latest/meta-data/iam/security-credentials/",
								buffer_text(&fetch->scratch[METADATA_ROLE]));
		case STAGE_ASSUME:
			return assume_roles(fetch, request);
		case STAGE_DONE:
			return FETCH_DONE;
		default:
			break;
	}
	return FETCH_FAILED;
}

/* Keys in JSON, from the container or EC2 */
static void
take_json(CredentialFetch *fetch, const HttpReply *reply, const char *what)
{
	Json	   *doc = jdoc_read(buffer_text(&reply->body), reply->body.len);
	const char *expiration = jdoc_text(doc, "Expiration");
	char		number[32];
	int64		epoch;

	if (reply->answered && reply->status == 200 &&
		keys_from_texts(fetch, jdoc_text(doc, "AccessKeyId"),
						jdoc_text(doc, "SecretAccessKey"), jdoc_text(doc, "Token")))
	{
		if (expiration == NULL && jdoc_int(doc, "Expiration", &epoch))
		{
			snprintf(number, sizeof(number), "%lld", (long long) epoch);
			expiration = number;
		}
		fetch->made.lifetime_ms = lifetime_of(expiration, reply->date);
		fetch->stage = STAGE_ASSUME;
	}
	else
		fetch_foreign_reply(fetch, reply, what);
	jdoc_free(doc);
}

/* Keys in XML, from STS */
static void
take_xml(CredentialFetch *fetch, const HttpReply *reply, const char *what)
{
	const char *body = buffer_text(&reply->body);
	SecretBuffer expiration = {0};
	SecretBuffer code = {0};
	Credential *made = &fetch->made;

	if (reply->answered && reply->status == 200 &&
		xml_get(body, "AccessKeyId", &made->access_key) &&
		xml_get(body, "SecretAccessKey", &made->secret_key) &&
		xml_get(body, "SessionToken", &made->token))
	{
		(void) xml_get(body, "Expiration", &expiration);
		made->lifetime_ms = lifetime_of(buffer_text(&expiration), reply->date);
		fetch->stage = STAGE_ASSUME;
	}
	else if (reply->answered && reply->status < 500 && xml_get(body, "Code", &code))
		fetch_fail(fetch, strstr(buffer_text(&code), "Throttl") ? KMS_UNREACHABLE : KMS_MISCONFIGURED,
				   "credentials: %s: STS answered %.100s", what, buffer_text(&code));
	else
		fetch_foreign_reply(fetch, reply, what);
	buffer_reset(&expiration);
	buffer_reset(&code);
}

static void
aws_take(CredentialFetch *fetch, const HttpReply *reply)
{
	static const char tried[] = "environment, profile files, web identity and container have none, and the EC2 metadata service";
	char		role[256];
	char		first;

	switch ((Stage) fetch->stage)
	{
		case STAGE_WEB_IDENTITY:
			take_xml(fetch, reply, "web identity");
			break;
		case STAGE_CONTAINER:
			take_json(fetch, reply, "the container's service");
			break;
		case STAGE_IMDS_TOKEN:
			if (reply->answered && reply->status == 200)
			{
				buffer_set(&fetch->scratch[METADATA_TOKEN], buffer_text(&reply->body));
				fetch->stage = STAGE_IMDS_ROLE;
			}
			else
				fetch_foreign_reply(fetch, reply, tried);
			break;
		case STAGE_IMDS_ROLE_ASKED:
			strlcpy(role, buffer_text(&reply->body), sizeof(role));
			role[strcspn(role, "\r\n")] = '\0';
			first = role[0];
			if (reply->answered && reply->status == 200 && first != '\0')
			{
				buffer_reset(&fetch->scratch[METADATA_ROLE]);
				buffer_escape(&fetch->scratch[METADATA_ROLE], role);
				fetch->stage = STAGE_IMDS_KEYS;
			}
			else
				fetch_foreign_reply(fetch, reply, "the EC2 metadata service has no role, or");
			break;
		case STAGE_IMDS_KEYS_ASKED:
			take_json(fetch, reply, "the EC2 metadata service");
			break;
		case STAGE_ASSUME_FIRST:
			buffer_reset(&fetch->scratch[ROLE]);
			take_xml(fetch, reply, "assuming the profile's role");
			break;
		case STAGE_ASSUME_KEK:
			take_xml(fetch, reply, "assuming the KEK's role");
			if (fetch->stage == STAGE_ASSUME)
				fetch->stage = STAGE_DONE;
			break;
		default:
			break;
	}
}

const CredentialKind aws_credentials = {
	.name = "AWS",
	.refresh_ahead_ms = 15 * 60 * 1000,
	.next = aws_next,
	.take = aws_take
};
