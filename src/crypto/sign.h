/*-------------------------------------------------------------------------
 *
 * sign.h
 *	  Signatures.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SIGN_H
#define ENVELOPE_SIGN_H

#define RS256_MAX_BYTES 1024	/* of a key of 8,192 bits */

extern bool sign_rs256(const char *private_key, const void *bytes, size_t len,
					   uint8 signature[RS256_MAX_BYTES], size_t *signature_len);

#endif							/* ENVELOPE_SIGN_H */
