/*-------------------------------------------------------------------------
 *
 * derive.h
 *	  What is made from a data key: its subkeys and its check.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_DERIVE_H
#define ENVELOPE_DERIVE_H

#include <openssl/types.h>

#include "crypto/format.h"
#include "crypto/secret.h"

/* What HKDF extracts from a data key, and everything is expanded from */
typedef struct DekRoot
{
	uint8		bytes[32];
} DekRoot;

extern bool dek_generate(Dek *dek);
extern bool dek_extract(const Dek *dek, DekRoot *root);
extern bool dek_derive(const DekRoot *root, KeyPurpose purpose, DekSubkeys *subkeys);
extern bool dek_check(const DekRoot *root, int64 key_id, const char *tenant,
					  KeyPurpose purpose, uint8 check[KEY_CHECK_BYTES]);
extern EVP_MAC_CTX *hmac_sha256_create(void);
extern bool key_checks_equal(const uint8 *a, const uint8 *b);

#endif							/* ENVELOPE_DERIVE_H */
