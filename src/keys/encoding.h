/*-------------------------------------------------------------------------
 *
 * encoding.h
 *	  Text between the server's encoding and UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ENCODING_H
#define ENVELOPE_ENCODING_H

extern const char *utf8_from_server(const char *text, size_t *len);
extern const char *utf8_to_server(const char *text, size_t *len);

#endif							/* ENVELOPE_ENCODING_H */
