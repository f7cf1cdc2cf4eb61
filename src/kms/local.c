/*-------------------------------------------------------------------------
 *
 * local.c
 *	  KEKs in files: local://NAME.
 *
 * A KEK is the files NAME.N.key of 32 random bytes in the directory
 * envelope.local_kek_directory.  N counts up from 1; the file with the highest
 * N wraps, and every file unwraps what it wrapped.  A data key is wrapped as
 *
 *		01 | N, 4 bytes | IV, 12 | data key encrypted, 32 | tag, 16
 *
 * by AES-256-GCM, with a label, N, key id and tenant as additional data.
 *
 * Nothing is sent anywhere, so that what other providers parse is made here in
 * its place.  The files are read for every call and not kept, so that a file that
 * is taken away or put back counts at once.  They are refused unless they belong to the
 * server's user alone and lie outside the data directory: a backup of the
 * database must not hold them.  What is wrong with one is told by its name and
 * not its path, since whoever opens a value gets to see it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"
#include "crypto/aead.h"
#include "crypto/derive.h"
#include "kms/faults.h"
#include "kms/provider.h"
#include "settings.h"

#define KEK_BYTES			32
#define WRAPPED_FORMAT		0x01
#define WRAPPED_HEADER		5	/* format and N */
#define WRAPPED_BYTES		(WRAPPED_HEADER + WRAP_IV_BYTES + DEK_BYTES + WRAP_TAG_BYTES)
#define AAD_LABEL			"envelope/local/1"
#define AAD_MAX				(sizeof(AAD_LABEL) - 1 + 4 + 8 + 4 + TENANT_MAX_BYTES)
#define MAX_VERSION			999999999
#define OUTSIDE_MS			1000

static const char *const no_options[] = {NULL};

/* Say why there is no key. */
#define fail(answer, outcome, ...) \
	answer_set(answer, outcome, HINT_NONE, __VA_ARGS__)

/* NAME: letters, digits, underscores and hyphens */
static bool
local_check_uri(const char *rest)
{
	size_t		len = strspn(rest,
							 "abcdefghijklmnopqrstuvwxyz"
							 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

	return len > 0 && rest[len] == '\0';
}

/* What a path led to when that was found to lie outside of the data directory */
typedef struct FoundOutside
{
	dev_t		device;
	ino_t		inode;
	struct timespec changed;
	int64		until;			/* boottime_ms() */
} FoundOutside;

/*
 * Does path, with all links resolved, lie in the data directory?  st tells of
 * what it leads to.  Following links takes longer than all the rest, so that
 * one that lies outside is looked at again when it is another, or after
 * OUTSIDE_MS, as a folder above may have moved.
 */
static bool
in_data_directory(const char *path, const struct stat *st, FoundOutside *found)
{
	char		real_path[PATH_MAX];
	char		real_data[PATH_MAX];
	size_t		len;

	if (boottime_ms() < found->until &&
		found->device == st->st_dev && found->inode == st->st_ino &&
		found->changed.tv_sec == st->st_ctim.tv_sec &&
		found->changed.tv_nsec == st->st_ctim.tv_nsec)
		return false;
	found->until = 0;
	if (realpath(path, real_path) == NULL || realpath(DataDir, real_data) == NULL)
		return true;			/* cannot tell: refuse */
	len = strlen(real_data);
	if (strncmp(real_path, real_data, len) == 0 &&
		(real_path[len] == '/' || real_path[len] == '\0'))
		return true;
	found->device = st->st_dev;
	found->inode = st->st_ino;
	found->changed = st->st_ctim;
	found->until = boottime_ms() + OUTSIDE_MS;
	return false;
}

/*
 * Is the directory there, and fit to hold KEKs?
 */
static bool
check_directory(KmsAnswer *answer)
{
	static FoundOutside outside;
	const char *dir = envelope_local_kek_directory;
	struct stat st;

	if (dir == NULL || dir[0] == '\0')
	{
		fail(answer, KMS_MISCONFIGURED, "envelope.local_kek_directory is not set");
		return false;
	}
	if (dir[0] != '/')
	{
		fail(answer, KMS_MISCONFIGURED,
			 "envelope.local_kek_directory is not an absolute path");
		return false;
	}
	if (stat(dir, &st) != 0)
	{
		fail(answer, KMS_MISCONFIGURED,
			 "could not look at envelope.local_kek_directory: %s", strerror(errno));
		return false;
	}
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
	{
		fail(answer, KMS_MISCONFIGURED,
			 "envelope.local_kek_directory is not a directory that belongs to the server's user and is closed to all others (mode 0700)");
		return false;
	}
	if (in_data_directory(dir, &st, &outside))
	{
		fail(answer, KMS_MISCONFIGURED,
			 "envelope.local_kek_directory lies in the data directory, so that backups would hold the KEK");
		return false;
	}
	return true;
}

/*
 * The N of a file name NAME.N.key; 0 where the name is another.
 */
static int
file_version(const char *name, const char *file)
{
	size_t		len = strlen(name);
	char	   *end;
	long		version;

	if (strncmp(file, name, len) != 0 || file[len] != '.' ||
		file[len + 1] < '1' || file[len + 1] > '9')
		return 0;
	version = strtol(file + len + 1, &end, 10);
	if (version > MAX_VERSION || strcmp(end, ".key") != 0)
		return 0;
	return (int) version;
}

/*
 * The version that wraps: the highest that is there.  0 with *answer set where
 * there is none.
 */
static int
newest_version(const char *name, KmsAnswer *answer)
{
	DIR		   *dir = opendir(envelope_local_kek_directory);
	struct dirent *entry;
	int			newest = 0;

	if (dir == NULL)
	{
		fail(answer, KMS_MISCONFIGURED,
			 "could not open envelope.local_kek_directory: %s", strerror(errno));
		return 0;
	}
	while ((entry = readdir(dir)) != NULL)
		newest = Max(newest, file_version(name, entry->d_name));
	closedir(dir);

	if (newest == 0)
		fail(answer, KMS_DENIED, "there is no file \"%s.N.key\" in envelope.local_kek_directory",
			 name);
	return newest;
}

/*
 * Check an open KEK file and read it.
 */
static bool
read_open_file(int fd, const char *path, uint8 *kek, KmsAnswer *answer)
{
	static FoundOutside outside;
	const char *file = last_dir_separator(path) + 1;
	struct stat st;
	uint8		bytes[KEK_BYTES + 1];
	ssize_t		len;

	if (fstat(fd, &st) != 0)
		fail(answer, KMS_MISCONFIGURED, "could not look at file \"%s\": %s",
			 file, strerror(errno));
	else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		fail(answer, KMS_MISCONFIGURED,
			 "file \"%s\" does not belong to the server's user", file);
	else if ((st.st_mode & 0177) != 0)
		fail(answer, KMS_MISCONFIGURED,
			 "file \"%s\" has mode %04o, not 0600", file,
			 (unsigned int) (st.st_mode & 07777));
	else if (in_data_directory(path, &st, &outside))
		fail(answer, KMS_MISCONFIGURED,
			 "file \"%s\" lies in the data directory, so that backups would hold the KEK",
			 file);
	else if ((len = read(fd, bytes, sizeof(bytes))) != KEK_BYTES)
	{
		if (len < 0)
			fail(answer, KMS_MISCONFIGURED, "could not read file \"%s\": %s",
				 file, strerror(errno));
		else
			fail(answer, KMS_MISCONFIGURED, "file \"%s\" is not %d bytes long",
				 file, KEK_BYTES);
		secret_wipe(bytes, sizeof(bytes));
	}
	else
	{
		memcpy(kek, bytes, KEK_BYTES);
		secret_wipe(bytes, sizeof(bytes));
		return true;
	}
	return false;
}

/*
 * Read the KEK file of a version; the caller wipes kek.
 */
static bool
read_kek(const char *name, int version, uint8 *kek, KmsAnswer *answer)
{
	char		path[MAXPGPATH];
	int			fd;
	bool		ok;

	snprintf(path, sizeof(path), "%s/%s.%d.key",
			 envelope_local_kek_directory, name, version);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
	{
		if (errno == ENOENT)
			fail(answer, KMS_DENIED, "there is no file \"%s.%d.key\" in envelope.local_kek_directory",
				 name, version);
		else
			fail(answer, KMS_MISCONFIGURED, "could not open file \"%s.%d.key\": %s",
				 name, version, strerror(errno));
		return false;
	}
	ok = read_open_file(fd, path, kek, answer);
	close(fd);
	return ok;
}

/* Write the additional data; returns its length. */
static size_t
make_aad(const KmsTask *task, int version, uint8 *aad)
{
	size_t		len = sizeof(AAD_LABEL) - 1;
	size_t		tenant_len = strlen(task->tenant);

	memcpy(aad, AAD_LABEL, len);
	bytes_put_u32(aad + len, (uint32) version);
	len += 4;
	bytes_put_u64(aad + len, (uint64) task->key_id);
	len += 8;
	bytes_put_u32(aad + len, (uint32) tenant_len);
	len += 4;
	memcpy(aad + len, task->tenant, tenant_len);
	return len + tenant_len;
}

static void
local_wrap(const char *name, const KmsTask *task, const Dek *dek,
		   KmsAnswer *answer)
{
	uint8		kek[KEK_BYTES];
	uint8		aad[AAD_MAX];
	uint8	   *iv = answer->wrapped + WRAPPED_HEADER;
	uint8	   *body = iv + WRAP_IV_BYTES;
	int			version = newest_version(name, answer);

	if (version == 0 || !read_kek(name, version, kek, answer))
		return;

	answer->wrapped[0] = WRAPPED_FORMAT;
	bytes_put_u32(answer->wrapped + 1, (uint32) version);
	answer->wrapped_len = WRAPPED_BYTES;
	snprintf(answer->kek_version, sizeof(answer->kek_version), "%d", version);

	if (dek_wrap(kek, dek, aad, make_aad(task, version, aad),
				 iv, body, body + DEK_BYTES))
		answer->outcome = KMS_OK;
	else
		fail(answer, KMS_UNREACHABLE, "OpenSSL could not wrap a data key");
	secret_wipe(kek, sizeof(kek));
}

static void
local_generate(const char *name, const KmsTask *task, KmsAnswer *answer)
{
	if (dek_generate(&answer->dek))
		local_wrap(name, task, &answer->dek, answer);
	else
		fail(answer, KMS_UNREACHABLE, "could not draw a data key");
}

static void
local_unwrap(const char *name, const KmsTask *task, KmsAnswer *answer)
{
	uint8		kek[KEK_BYTES];
	uint8		aad[AAD_MAX];
	const uint8 *wrapped = task->wrapped;
	const uint8 *iv = wrapped + WRAPPED_HEADER;
	const uint8 *body = iv + WRAP_IV_BYTES;
	uint32		version;

	if (task->wrapped_len != WRAPPED_BYTES || wrapped[0] != WRAPPED_FORMAT)
	{
		fail(answer, KMS_CORRUPT, "the data key was not wrapped by a local KEK");
		return;
	}
	version = (uint32) wrapped[1] << 24 | (uint32) wrapped[2] << 16 |
		(uint32) wrapped[3] << 8 | (uint32) wrapped[4];
	if (version < 1 || version > MAX_VERSION)
	{
		fail(answer, KMS_CORRUPT, "the data key was not wrapped by a local KEK");
		return;
	}

	if (!read_kek(name, (int) version, kek, answer))
		return;
	if (dek_unwrap(kek, iv, body, body + DEK_BYTES,
				   aad, make_aad(task, (int) version, aad), &answer->dek))
		answer->outcome = KMS_OK;
	else
		fail(answer, KMS_CORRUPT,
			 "wrong key: file \"%s.%u.key\" is not the one that wrapped this data key, or the key's row was changed",
			 name, version);
	secret_wipe(kek, sizeof(kek));
}

/* Nothing is sent: a fault may hold the answer back. */
static bool
local_build(const KmsTask *tasks, int ntasks, const Credential *credential,
			HttpRequest *request, KmsAnswer *answer)
{
	KekFault	fault = kek_fault_of(tasks[0].kek);

	request->delay_ms = fault.stalled ? -1 : fault.delay_ms;
	return true;
}

static void
local_parse(const KmsTask *tasks, int ntasks, const HttpReply *reply,
			KmsAnswer *answers)
{
	const KmsTask *task = &tasks[0];
	KmsAnswer  *answer = &answers[0];
	const char *name = kms_uri_rest(&local_provider, task->uri);
	KekFault	fault = kek_fault_of(task->kek);

	if (fault.unreachable)
		fail(answer, KMS_UNREACHABLE, "unreachable by envelope.local_kek_faults");
	else if (fault.denied)
		fail(answer, KMS_DENIED, "denied by envelope.local_kek_faults");
	else if (fault.corrupt)
		fail(answer, KMS_CORRUPT, "corrupt by envelope.local_kek_faults");
	else if (check_directory(answer))
	{
		if (task->operation == KMS_GENERATE)
			local_generate(name, task, answer);
		else if (task->operation == KMS_WRAP)
			local_wrap(name, task, task->dek, answer);
		else
			local_unwrap(name, task, answer);
	}
}

const KmsProvider local_provider = {
	.scheme = "local://",
	.uri_form = "local://NAME",
	.options = no_options,
	.batch_max = 1,
	.check_uri = local_check_uri,
	.build = local_build,
	.parse = local_parse
};
