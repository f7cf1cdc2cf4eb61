/*-------------------------------------------------------------------------
 *
 * derive.c
 *	  Subkeys of a data key, by HKDF-SHA-256 (RFC 5869), and the check that
 *	  binds a data key to its id, tenant and purpose, by HMAC-SHA-256
 *	  (RFC 2104).
 *
 * The worker calls this: nothing here throws or allocates from a memory
 * context.  Every function returns false where OpenSSL failed, and has then
 * wiped what it had written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "crypto/derive.h"

#define INFO_PREFIX "envelope/1/"

/*
 * Draw a new data key.
 */
bool
dek_generate(Dek *dek)
{
	if (pg_strong_random(dek->bytes, sizeof(dek->bytes)))
		return true;
	secret_wipe(dek, sizeof(*dek));
	return false;
}

/* Run a step of HKDF-SHA-256; info is NULL for the first. */
static bool
hkdf(int mode, const uint8 *key, const char *info, uint8 *out, size_t len)
{
	static char digest[] = "SHA256";
	static EVP_KDF *kdf = NULL;
	EVP_KDF_CTX *ctx;
	OSSL_PARAM	params[5];
	int			n = 0;
	bool		ok;

	/* Once in the life of a process */
	if (kdf == NULL)
		kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	params[n++] = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	params[n++] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	params[n++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
													unconstify(uint8 *, key), 32);
	if (info)
		params[n++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO,
														unconstify(char *, info), strlen(info));
	params[n] = OSSL_PARAM_construct_end();

	ok = ctx != NULL && EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	return ok;
}

/*
 * Extract, without salt, what is to be expanded; the caller wipes it.
 */
bool
dek_extract(const Dek *dek, DekRoot *root)
{
	StaticAssertStmt(DEK_BYTES == 32 && sizeof(root->bytes) == 32, "keys of HKDF");

	if (hkdf(EVP_KDF_HKDF_MODE_EXTRACT_ONLY, dek->bytes, NULL,
			 root->bytes, sizeof(root->bytes)))
		return true;
	secret_wipe(root, sizeof(*root));
	return false;
}

/* Expand for one use. */
static bool
expand(const DekRoot *root, const char *use, uint8 *out, size_t len)
{
	char		info[32];

	snprintf(info, sizeof(info), INFO_PREFIX "%s", use);
	return hkdf(EVP_KDF_HKDF_MODE_EXPAND_ONLY, root->bytes, info, out, len);
}

/*
 * Derive the subkeys that a data key of this purpose is used as.
 */
bool
dek_derive(const DekRoot *root, KeyPurpose purpose, DekSubkeys *subkeys)
{
	bool		ok;

	memset(subkeys, 0, sizeof(*subkeys));
	if (purpose == PURPOSE_DATA)
		ok = expand(root, "gcm", subkeys->gcm, sizeof(subkeys->gcm));
	else
		ok = expand(root, "siv", subkeys->siv, sizeof(subkeys->siv)) &&
			expand(root, "index", subkeys->index, sizeof(subkeys->index));

	if (!ok)
		secret_wipe(subkeys, sizeof(*subkeys));
	return ok;
}

/*
 * A context of HMAC-SHA-256 without a key, for the caller to free; NULL where
 * memory or OpenSSL fails.
 */
EVP_MAC_CTX *
hmac_sha256_create(void)
{
	static EVP_MAC *mac = NULL;
	static char digest[] = "SHA256";
	OSSL_PARAM	params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end()
	};
	EVP_MAC_CTX *ctx;

	/* Once in the life of a process */
	if (mac == NULL)
		mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
	if (ctx && EVP_MAC_CTX_set_params(ctx, params) <= 0)
	{
		EVP_MAC_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

/* HMAC-SHA-256 with a key of 32 bytes */
static bool
hmac_sha256(const uint8 *key, const uint8 *input, size_t len, uint8 out[32])
{
	static EVP_MAC_CTX *keyless = NULL; /* to copy: finding it takes longer
										 * than using it */
	EVP_MAC_CTX *ctx;
	size_t		out_len = 0;
	bool		ok;

	if (keyless == NULL)
		keyless = hmac_sha256_create();
	ctx = keyless ? EVP_MAC_CTX_dup(keyless) : NULL;
	ok = ctx && EVP_MAC_init(ctx, key, 32, NULL) > 0 &&
		EVP_MAC_update(ctx, input, len) > 0 &&
		EVP_MAC_final(ctx, out, &out_len, 32) > 0;
	EVP_MAC_CTX_free(ctx);
	return ok;
}

/*
 * Compute the check of a data key.
 *
 * Whoever can write tenant_keys can pair any wrapped key with any tenant, and
 * a KMS may return what it likes.  Neither can make this check come out right
 * without knowing the data key.  tenant is UTF-8.
 */
bool
dek_check(const DekRoot *root, int64 key_id, const char *tenant,
		  KeyPurpose purpose, uint8 check[KEY_CHECK_BYTES])
{
	uint8		subkey[32];
	uint8		input[8 + 4 + TENANT_MAX_BYTES + 4 + 16];
	const char *purpose_str = purpose_name(purpose);
	size_t		tenant_len = strlen(tenant);
	size_t		purpose_len = strlen(purpose_str);
	size_t		len = 0;
	bool		ok;

	if (tenant_len > TENANT_MAX_BYTES)
		return false;

	bytes_put_u64(input, (uint64) key_id);
	len += 8;
	bytes_put_u32(input + len, (uint32) tenant_len);
	len += 4;
	memcpy(input + len, tenant, tenant_len);
	len += tenant_len;
	bytes_put_u32(input + len, (uint32) purpose_len);
	len += 4;
	memcpy(input + len, purpose_str, purpose_len);
	len += purpose_len;

	ok = expand(root, "check", subkey, sizeof(subkey)) &&
		hmac_sha256(subkey, input, len, check);
	secret_wipe(subkey, sizeof(subkey));
	return ok;
}

/* Compare two checks in constant time. */
bool
key_checks_equal(const uint8 *a, const uint8 *b)
{
	return CRYPTO_memcmp(a, b, KEY_CHECK_BYTES) == 0;
}
