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
#include <openssl/hmac.h>
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

/*
 * Expand a data key, without salt, for one use.
 */
static bool
expand(const Dek *dek, const char *use, uint8 *out, size_t len)
{
	static char digest[] = "SHA256";
	EVP_KDF    *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	char		info[32];
	OSSL_PARAM	params[4];
	bool		ok;

	snprintf(info, sizeof(info), INFO_PREFIX "%s", use);
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
												  unconstify(Dek *, dek)->bytes,
												  sizeof(dek->bytes));
	params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO,
												  info, strlen(info));
	params[3] = OSSL_PARAM_construct_end();

	ok = ctx != NULL && EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

/*
 * Derive the subkeys that a data key of this purpose is used as.
 */
bool
dek_derive(const Dek *dek, KeyPurpose purpose, DekSubkeys *subkeys)
{
	bool		ok;

	memset(subkeys, 0, sizeof(*subkeys));
	if (purpose == PURPOSE_DATA)
		ok = expand(dek, "gcm", subkeys->gcm, sizeof(subkeys->gcm));
	else
		ok = expand(dek, "siv", subkeys->siv, sizeof(subkeys->siv)) &&
			expand(dek, "index", subkeys->index, sizeof(subkeys->index));

	if (!ok)
		secret_wipe(subkeys, sizeof(*subkeys));
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
dek_check(const Dek *dek, int64 key_id, const char *tenant,
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

	ok = expand(dek, "check", subkey, sizeof(subkey)) &&
		HMAC(EVP_sha256(), subkey, sizeof(subkey), input, len,
			 check, NULL) != NULL;
	secret_wipe(subkey, sizeof(subkey));
	return ok;
}

/* Compare two checks in constant time. */
bool
key_checks_equal(const uint8 *a, const uint8 *b)
{
	return CRYPTO_memcmp(a, b, KEY_CHECK_BYTES) == 0;
}
