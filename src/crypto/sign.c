/*-------------------------------------------------------------------------
 *
 * sign.c
 *	  Signatures: RS256 of RFC 7518, with which a service account of Google
 *	  proves who it is.
 *
 * The worker calls this: nothing here throws or allocates from a memory
 * context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "crypto/sign.h"

/* A key that wants a passphrase is not used; nobody is there to be asked. */
static int
no_passphrase(char *out, int size, int writing, void *arg)
{
	return -1;
}

/*
 * Sign bytes by an RSA key in PEM.  False where that is no such key, or OpenSSL
 * failed.
 */
bool
sign_rs256(const char *private_key, const void *bytes, size_t len,
		   uint8 signature[RS256_MAX_BYTES], size_t *signature_len)
{
	BIO		   *bio = BIO_new_mem_buf(private_key, -1);
	EVP_PKEY   *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool		ok;

	*signature_len = RS256_MAX_BYTES;
	ok = key != NULL && ctx != NULL && EVP_PKEY_is_a(key, "RSA") &&
		EVP_PKEY_size(key) <= RS256_MAX_BYTES &&
		EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) > 0 &&
		EVP_DigestSign(ctx, signature, signature_len, bytes, len) > 0;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	BIO_free(bio);
	return ok;
}
