/*-------------------------------------------------------------------------
 *
 * buffer.h
 *	  Growing strings that may hold secrets.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_BUFFER_H
#define ENVELOPE_BUFFER_H

/*
 * Zero is an empty buffer.  The memory is malloc's, wiped whenever it is given
 * back.  Where memory runs out, or a limit is reached, the buffer has failed:
 * it is empty and stays so, and its user asks once at the end.
 */
typedef struct SecretBuffer
{
	char	   *data;			/* ends with a zero byte; NULL while empty */
	size_t		len;
	size_t		size;
	bool		failed;
} SecretBuffer;

extern void buffer_reset(SecretBuffer *buffer);
extern void buffer_append(SecretBuffer *buffer, const void *bytes, size_t len);
extern void buffer_puts(SecretBuffer *buffer, const char *text);
extern void buffer_printf(SecretBuffer *buffer, const char *fmt,...) pg_attribute_printf(2, 3);
extern void buffer_base64(SecretBuffer *buffer, const void *bytes, size_t len);
extern void buffer_base64url(SecretBuffer *buffer, const void *bytes, size_t len);
extern void buffer_escape(SecretBuffer *buffer, const char *text);
extern void buffer_set(SecretBuffer *buffer, const char *text);
extern bool buffer_read_fd(SecretBuffer *buffer, int fd);
extern bool buffer_read_file(SecretBuffer *buffer, const char *path);

static inline const char *
buffer_text(const SecretBuffer *buffer)
{
	return buffer->data ? buffer->data : "";
}

extern int	base64_decode_exactly(const char *text, void *out, int size);

#endif							/* ENVELOPE_BUFFER_H */
