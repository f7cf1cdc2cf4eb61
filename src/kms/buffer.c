/*-------------------------------------------------------------------------
 *
 * buffer.c
 *	  Growing strings that may hold secrets.
 *
 * Requests to a KMS, its replies and credentials are put together here, outside
 * of PostgreSQL's memory contexts: nothing throws, and no copy is left behind
 * when a buffer grows or ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/base64.h"

#include "crypto/secret.h"
#include "kms/buffer.h"

#define FIRST_SIZE		256
/* Nothing that is exchanged with a KMS is longer */
#define BUFFER_MAX		(1024 * 1024)
/* Nor a file that holds a credential */
#define FILE_MAX		(256 * 1024)

/* Wipe it and give its memory back; it is empty, and good again. */
void
buffer_reset(SecretBuffer *buffer)
{
	if (buffer->data)
	{
		secret_wipe(buffer->data, buffer->size);
		free(buffer->data);
	}
	memset(buffer, 0, sizeof(*buffer));
}

static void
fail(SecretBuffer *buffer)
{
	buffer_reset(buffer);
	buffer->failed = true;
}

/* Make room for len more bytes and a zero. */
static bool
reserve(SecretBuffer *buffer, size_t len)
{
	size_t		size = Max(buffer->size, FIRST_SIZE);
	char	   *data;

	if (buffer->failed)
		return false;
	if (len > BUFFER_MAX || buffer->len + len >= BUFFER_MAX)
	{
		fail(buffer);
		return false;
	}
	while (size <= buffer->len + len)
		size *= 2;
	if (size == buffer->size)
		return true;

	data = malloc(size);
	if (data == NULL)
	{
		fail(buffer);
		return false;
	}
	if (buffer->data)
	{
		memcpy(data, buffer->data, buffer->len + 1);
		secret_wipe(buffer->data, buffer->size);
		free(buffer->data);
	}
	buffer->data = data;
	buffer->size = size;
	return true;
}

void
buffer_append(SecretBuffer *buffer, const void *bytes, size_t len)
{
	if (!reserve(buffer, len))
		return;
	if (len > 0)
		memcpy(buffer->data + buffer->len, bytes, len);
	buffer->len += len;
	buffer->data[buffer->len] = '\0';
}

void
buffer_puts(SecretBuffer *buffer, const char *text)
{
	buffer_append(buffer, text, strlen(text));
}

/* Replace what it holds. */
void
buffer_set(SecretBuffer *buffer, const char *text)
{
	buffer_reset(buffer);
	buffer_puts(buffer, text);
}

void
buffer_printf(SecretBuffer *buffer, const char *fmt,...)
{
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0 || !reserve(buffer, len))
		return;
	va_start(args, fmt);
	(void) vsnprintf(buffer->data + buffer->len, len + 1, fmt, args);
	va_end(args);
	buffer->len += len;
}

/* Append bytes in base64, standard and padded. */
void
buffer_base64(SecretBuffer *buffer, const void *bytes, size_t len)
{
	int			size = pg_b64_enc_len((int) len);
	int			written;

	if (!reserve(buffer, size))
		return;
	written = pg_b64_encode(bytes, (int) len, buffer->data + buffer->len, size);
	if (written < 0)
	{
		fail(buffer);
		return;
	}
	buffer->len += written;
	buffer->data[buffer->len] = '\0';
}

/* Append bytes in base64 as URLs and JSON web tokens have it. */
void
buffer_base64url(SecretBuffer *buffer, const void *bytes, size_t len)
{
	size_t		from = buffer->len;

	buffer_base64(buffer, bytes, len);
	if (buffer->failed)
		return;
	while (buffer->len > from && buffer->data[buffer->len - 1] == '=')
		buffer->data[--buffer->len] = '\0';
	for (size_t i = from; i < buffer->len; i++)
	{
		if (buffer->data[i] == '+')
			buffer->data[i] = '-';
		else if (buffer->data[i] == '/')
			buffer->data[i] = '_';
	}
}

/* Append a text as a part of a URL, or of a form. */
void
buffer_escape(SecretBuffer *buffer, const char *text)
{
	for (const char *at = text; *at; at++)
	{
		if (isalnum((unsigned char) *at) || strchr("-._~", *at))
			buffer_append(buffer, at, 1);
		else
			buffer_printf(buffer, "%%%02X", (unsigned char) *at);
	}
}

/*
 * Read a file that is open into an empty buffer, without the line ends it ends
 * with.  False with errno set where that fails; one that is too long is EFBIG.
 */
bool
buffer_read_fd(SecretBuffer *buffer, int fd)
{
	char		chunk[4096];
	ssize_t		len = 0;
	int			error = 0;

	while (error == 0 && (len = read(fd, chunk, sizeof(chunk))) > 0)
	{
		buffer_append(buffer, chunk, len);
		if (buffer->failed || buffer->len > FILE_MAX)
			error = EFBIG;
	}
	if (len < 0)
		error = errno;
	secret_wipe(chunk, sizeof(chunk));
	if (error != 0)
	{
		buffer_reset(buffer);
		errno = error;
		return false;
	}
	while (buffer->len > 0 && strchr("\r\n", buffer->data[buffer->len - 1]))
		buffer->data[--buffer->len] = '\0';
	return true;
}

/* The same for a file by its path */
bool
buffer_read_file(SecretBuffer *buffer, const char *path)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool		ok;
	int			error;

	if (fd < 0)
		return false;
	ok = buffer_read_fd(buffer, fd);
	error = errno;
	close(fd);
	errno = error;
	return ok;
}

/*
 * Decode standard base64 into at most size bytes; the number of bytes, or -1
 * where text is NULL, is not base64, or does not fit.
 */
int
base64_decode_exactly(const char *text, void *out, int size)
{
	size_t		len;
	uint8		bytes[8 * 1024 + 16];
	int			decoded;

	if (text == NULL)
		return -1;
	len = strlen(text);
	if (len % 4 != 0 || len > (sizeof(bytes) - 16) / 3 * 4)
		return -1;
	/* What base64 never has, white space included, which the decoder allows */
	if (strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") != len)
		return -1;
	decoded = pg_b64_decode(text, (int) len, (void *) bytes, sizeof(bytes));
	if (decoded > size)
		decoded = -1;
	if (decoded > 0)
		memcpy(out, bytes, decoded);
	secret_wipe(bytes, len / 4 * 3);
	return decoded;
}
