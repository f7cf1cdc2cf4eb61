/*-------------------------------------------------------------------------
 *
 * aead.h
 *	  Sealing, opening and hashing of one value under one data key; and the
 *	  wrapping of a data key under a local KEK.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_AEAD_H
#define ENVELOPE_AEAD_H

#include "crypto/format.h"
#include "crypto/secret.h"

#define TERM_MAX_BYTES		32

/* The sizes of what a KEK of 32 bytes wraps a data key with */
#define WRAP_IV_BYTES		12
#define WRAP_TAG_BYTES		16

/* A data key expanded into cipher contexts; opaque, wiped when freed */
typedef struct DekCiphers DekCiphers;

extern DekCiphers *dek_ciphers_create(void);
extern bool dek_ciphers_load(DekCiphers *ciphers, KeyPurpose purpose,
							 const DekSubkeys *subkeys);
extern void dek_ciphers_free(DekCiphers *ciphers);

extern bool aead_seal(DekCiphers *ciphers, SealedAlgorithm algorithm,
					  const uint8 *aad, size_t aad_len,
					  uint8 *iv, uint8 *body, size_t body_len, uint8 *tag);
extern bool aead_open(DekCiphers *ciphers, const SealedValue *value,
					  const uint8 *aad, size_t aad_len, uint8 *body);
extern bool term_hash(DekCiphers *ciphers,
					  const uint8 *context, size_t context_len,
					  SealedKind kind, const uint8 *plaintext, size_t len,
					  uint8 term[TERM_MAX_BYTES]);

extern bool random_iv(uint8 iv[SEALED_IV_BYTES]);
extern void random_iv_forget(void);

extern bool dek_wrap(const uint8 kek[32], const Dek *dek,
					 const uint8 *aad, size_t aad_len,
					 uint8 *iv, uint8 *body, uint8 *tag);
extern bool dek_unwrap(const uint8 kek[32],
					   const uint8 *iv, const uint8 *body, const uint8 *tag,
					   const uint8 *aad, size_t aad_len, Dek *dek);

#endif							/* ENVELOPE_AEAD_H */
