/*-------------------------------------------------------------------------
 *
 * fetch.c
 *	  What all kinds of credentials have in common: how they are made from
 *	  profiles, files, the environment and replies.
 *
 * The kinds (kms/aws_credentials.c and its likes) say what to ask and read;
 * when, and what becomes of it, is the business of kms/credential.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "crypto/secret.h"
#include "kms/credential.h"
#include "kms/provider.h"

/* A variable of the server's environment; NULL where it is not set or empty */
const char *
environment(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

void
credential_reset(Credential *credential)
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
	memset(credential, 0, sizeof(*credential));
}

/*
 * May it be shown to the host of a URL?  The endpoint that it names itself may
 * always see it.
 */
bool
credential_may_go_to(const Credential *credential, const char *url)
{
	char		host[300];
	char		endpoint[300];
	const char *at = buffer_text(&credential->hosts);
	size_t		len;

	if (!url_host(url, host, sizeof(host)))
		return false;
	len = strlen(host);
	if (credential->hosts.len == 0)
		return true;
	if (url_host(buffer_text(&credential->endpoint), endpoint, sizeof(endpoint)) &&
		strcmp(host, endpoint) == 0)
		return true;
	for (; *at; at += strcspn(at, " ") + 1)
	{
		if (strcspn(at, " ") == len && pg_strncasecmp(at, host, len) == 0)
			return true;
	}
	return false;
}

/* The fetch cannot go on. */
void
fetch_fail(CredentialFetch *fetch, KmsOutcome outcome, const char *fmt,...)
{
	va_list		args;

	fetch->outcome = outcome;
	va_start(args, fmt);
	vsnprintf(fetch->detail, sizeof(fetch->detail), fmt, args);
	va_end(args);
	text_make_harmless(fetch->detail);
}

static void
look_at_file(const char *path, struct stat *is)
{
	if (stat(path, is) != 0)
		memset(is, 0, sizeof(*is));
}

static bool
file_is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
		a->st_size == b->st_size &&
		a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
		a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
		a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
		a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Has one of them changed, or do their paths lead to others? */
bool
watched_files_changed(const WatchedFiles *files)
{
	for (int i = 0; i < files->nfiles; i++)
	{
		struct stat is;

		look_at_file(files->files[i].path, &is);
		if (!file_is_same(&is, &files->files[i].was))
			return true;
	}
	return false;
}

/*
 * Read a file that a credential is made from, and watch it from now on.  The
 * problem, where there is one, names what and the errno, not the path, since
 * whoever opens a value gets to see it.
 */
bool
fetch_file(CredentialFetch *fetch, const char *path, const char *what,
		   SecretBuffer *contents)
{
	WatchedFiles *files = fetch->files;

	if (files->nfiles < FILES_MAX && strlen(path) < MAXPGPATH)
	{
		WatchedFile *file = &files->files[files->nfiles++];

		strlcpy(file->path, path, sizeof(file->path));
		look_at_file(path, &file->was);
	}
	buffer_reset(contents);
	if (buffer_read_file(contents, path))
		return true;
	fetch_fail(fetch, KMS_MISCONFIGURED, "credentials: could not read %s: %s",
			   what, strerror(errno));
	return false;
}

/*
 * Find the profile of a fetch.  NULL where it has none; false with the fetch
 * failed where it cannot be had.
 */
bool
fetch_profile(CredentialFetch *fetch, const Json **profile)
{
	char		problem[256];

	*profile = NULL;
	if (fetch->key->profile[0] == '\0')
		return true;
	*profile = profile_find(fetch->key->profile, problem, sizeof(problem));
	if (*profile == NULL)
		fetch_fail(fetch, KMS_MISCONFIGURED, "credentials: %s", problem);
	return *profile != NULL;
}

/* Take from a profile what all kinds have in common. */
void
fetch_take_common(CredentialFetch *fetch, const Json *profile)
{
	Credential *made = &fetch->made;
	const Json *hosts = jdoc_get(profile, "hosts");
	const char *text;

	for (size_t i = 0; i < jdoc_length(hosts); i++)
	{
		text = jdoc_string(jdoc_item(hosts, i));

		if (text)
			buffer_printf(&made->hosts, "%s ", text);
	}
	if ((text = jdoc_text(profile, "endpoint")) !=NULL)
		buffer_set(&made->endpoint, text);
	if ((text = jdoc_text(profile, "ca_file")) !=NULL)
		buffer_set(&made->ca_file, text);
	if ((text = jdoc_text(profile, "client_cert")) !=NULL)
		buffer_set(&made->client_cert, text);
	if ((text = jdoc_text(profile, "client_key")) !=NULL)
		buffer_set(&made->client_key, text);
	if ((text = jdoc_text(profile, "namespace")) !=NULL)
		buffer_set(&made->name_space, text);
}

/*
 * Fail a fetch for a reply that is not what was hoped for: by its status it is
 * either a refusal or something that may pass.  Who refuses says so in JSON; a
 * page comes from somebody in between, but where nobody is.
 */
void
fetch_foreign_reply(CredentialFetch *fetch, const HttpReply *reply, const char *what)
{
	bool		refused = reply->status == 400 || reply->status == 401 ||
		reply->status == 403 || reply->status == 404;
	Json	   *doc = jdoc_read(buffer_text(&reply->body), reply->body.len);

	if (!reply->answered)
		fetch_fail(fetch, KMS_UNREACHABLE, "credentials: %s: %s", what, reply->problem);
	else if (refused && (jdoc_is_object(doc) || fetch->metadata))
		fetch_fail(fetch, KMS_MISCONFIGURED,
				   "credentials: %s was refused with HTTP status %ld", what, reply->status);
	else
		fetch_fail(fetch, KMS_UNREACHABLE,
				   "credentials: %s gave an answer with HTTP status %ld that is not its own",
				   what, reply->status);
	jdoc_free(doc);
}
