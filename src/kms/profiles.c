/*-------------------------------------------------------------------------
 *
 * profiles.c
 *	  The file of credential profiles, envelope.credentials_file.
 *
 * A KEK names a profile; what is in it, and where it may be sent, stands in
 * this file, which only the server's administrator can write.  It is read when
 * first needed, and again when it has changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/secret.h"
#include "kms/credential.h"
#include "settings.h"

static Json *profiles = NULL;
static struct stat read_as;		/* what was read; st_ino 0: nothing */
static uint64 generation = 1;	/* counts what was read */

/* Does every member of "profiles" look like one? */
static void
check_profile(const char *name, const Json *profile, void *arg)
{
	const char **problem = arg;

	if (!jdoc_is_object(profile))
		*problem = "a profile is no JSON object";
	else if (strlen(name) == 0 || strlen(name) >= PROFILE_NAME_MAX)
		*problem = "a profile's name is empty or too long";
	else if (jdoc_get(profile, "hosts") && jdoc_length(jdoc_get(profile, "hosts")) == 0)
		*problem = "the hosts of a profile are no list, or an empty one";
}

/*
 * Parse the text of such a file.  NULL where it is malformed, with *problem
 * set.
 */
Json *
profiles_parse(const char *text, size_t len, const char **problem)
{
	Json	   *doc = jdoc_read(text, len);

	*problem = NULL;
	if (doc == NULL)
		*problem = "it is not JSON";
	else if (!jdoc_is_object(jdoc_get(doc, "profiles")))
		*problem = "it has no object \"profiles\"";
	else
		jdoc_each(jdoc_get(doc, "profiles"), check_profile, problem);
	if (*problem)
	{
		jdoc_free(doc);
		doc = NULL;
	}
	return doc;
}

/* Read the file anew when it is needed next. */
void
profiles_forget(void)
{
	jdoc_free(profiles);
	profiles = NULL;
	memset(&read_as, 0, sizeof(read_as));
	generation++;
}

/* Has the file been changed since it was read? */
static bool
file_changed(void)
{
	struct stat is;

	if (envelope_credentials_file == NULL || stat(envelope_credentials_file, &is) != 0)
		return read_as.st_ino != 0;
	return is.st_dev != read_as.st_dev || is.st_ino != read_as.st_ino ||
		is.st_size != read_as.st_size ||
		is.st_mtim.tv_sec != read_as.st_mtim.tv_sec ||
		is.st_mtim.tv_nsec != read_as.st_mtim.tv_nsec ||
		is.st_ctim.tv_sec != read_as.st_ctim.tv_sec ||
		is.st_ctim.tv_nsec != read_as.st_ctim.tv_nsec;
}

/* Counts the states of the file, which is looked at for this. */
uint64
profiles_generation(void)
{
	if (read_as.st_ino != 0 && file_changed())
		profiles_forget();
	return generation;
}

/* Check the file that is open, and read it; NULL or what is wrong. */
static const char *
read_open_file(int fd)
{
	const char *problem = NULL;
	SecretBuffer text = {0};
	struct stat is;

	if (fstat(fd, &is) != 0)
		return "envelope.credentials_file cannot be looked at";
	read_as = is;
	if (!S_ISREG(is.st_mode))
		return "envelope.credentials_file is no regular file";
	if (!(is.st_uid == geteuid() && (is.st_mode & 0177) == 0) &&
		!(is.st_uid == 0 && (is.st_mode & 0137) == 0))
		return "envelope.credentials_file must belong to the server's user with mode 0600, or to root with mode 0640";
	if (!buffer_read_fd(&text, fd))
		return "envelope.credentials_file cannot be read";
	profiles = profiles_parse(buffer_text(&text), text.len, &problem);
	buffer_reset(&text);
	return problem;
}

/*
 * Read the file; NULL or what is wrong.  What is checked is what is read, and
 * not what the path leads to at another moment.
 */
static const char *
read_profiles(void)
{
	const char *path = envelope_credentials_file;
	const char *problem;
	int			fd;

	if (path == NULL || path[0] == '\0')
		return "envelope.credentials_file is not set";
	if (path[0] != '/')
		return "envelope.credentials_file is not an absolute path";
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? "envelope.credentials_file cannot be found" :
			"envelope.credentials_file cannot be opened";
	problem = read_open_file(fd);
	close(fd);
	return problem;
}

/*
 * Find a profile.  NULL where it cannot be had, with the problem, of at most
 * size bytes.  Good until the file is read again.
 */
const Json *
profile_find(const char *name, char *problem, size_t size)
{
	const Json *profile;
	const char *why;

	if (profiles == NULL && (why = read_profiles()) != NULL)
	{
		snprintf(problem, size, "%s", why);
		return NULL;
	}
	profile = jdoc_get(jdoc_get(profiles, "profiles"), name);
	if (profile == NULL)
		snprintf(problem, size, "envelope.credentials_file has no profile \"%s\"", name);
	return profile;
}
