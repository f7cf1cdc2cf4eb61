/*-------------------------------------------------------------------------
 *
 * aead.c
 *	  AES-256-GCM (NIST SP 800-38D) with a random IV of 16 bytes, AES-256-SIV
 *	  (RFC 5297), HMAC-SHA-256 terms, and the pool of random IVs.
 *
 * Setting a key costs as much as sealing a short value, so that a data key is
 * expanded once into a DekCiphers and used for row after row: only the IV
 * changes.  OpenSSL's SIV takes no second message under one key, so that
 * there the key is set for every value.
 *
 * Nothing here throws or allocates from a memory context; OpenSSL's errors
 * come back as false.  Ciphers are fetched once a process: an implicit fetch
 * for every value costs more than the value.  Telling an HMAC which digest it
 * is made of is such a fetch, so that one context that knows is kept for the
 * next key.  What it held of a key is overwritten by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "miscadmin.h"

#include "crypto/aead.h"
#include "crypto/derive.h"

/*
 * Random IVs drawn ahead.  One call of the system's generator a value would
 * cost more than the encryption.  A larger pool is what a cloned machine
 * would repeat, so it is small and ends with the transaction.  It begins
 * smaller still, as what most transactions write is a row, and grows.
 */
#define IV_POOL_SIZE		64
#define IV_POOL_FIRST		4
#define IV_POOL_GROWTH		4

/* getentropy() gives at most this many bytes a call (POSIX.1-2024) */
#define ENTROPY_MAX_BYTES	256

struct DekCiphers
{
	KeyPurpose	purpose;
	EVP_CIPHER_CTX *gcm;		/* IV length set, keyed; purpose data */
	EVP_CIPHER_CTX *siv;		/* keyed for each value; purpose index */
	uint8		siv_key[64];
	EVP_MAC_CTX *term;			/* keyed; purpose index */
	bool		term_is_used;	/* it has to be keyed again */
	uint8		term_key[32];
};

static EVP_CIPHER *gcm_cipher = NULL;
static EVP_CIPHER *siv_cipher = NULL;

/* A context of HMAC-SHA-256 without a key, for the next DekCiphers; or NULL */
static EVP_MAC_CTX *spare_hmac = NULL;

static uint8 iv_pool[IV_POOL_SIZE][SEALED_IV_BYTES];
static int	iv_pool_left = 0;
static int	iv_pool_next = IV_POOL_FIRST;	/* how many are drawn next */
static int	iv_pool_pid = 0;

/* Fetch the algorithms, at the first use in this process. */
static bool
fetch_algorithms(void)
{
	if (gcm_cipher == NULL)
		gcm_cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	if (siv_cipher == NULL)
		siv_cipher = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
	return gcm_cipher != NULL && siv_cipher != NULL;
}

/*
 * Make an empty DekCiphers; NULL where memory or OpenSSL fails.  The caller
 * frees it with dek_ciphers_free.
 */
DekCiphers *
dek_ciphers_create(void)
{
	if (!fetch_algorithms())
		return NULL;
	return OPENSSL_zalloc(sizeof(DekCiphers));
}

static bool
load_gcm(DekCiphers *ciphers, const uint8 *key)
{
	if (ciphers->gcm == NULL)
	{
		ciphers->gcm = EVP_CIPHER_CTX_new();
		if (ciphers->gcm == NULL ||
			EVP_CipherInit_ex(ciphers->gcm, gcm_cipher, NULL, NULL, NULL, 1) <= 0 ||
			EVP_CIPHER_CTX_ctrl(ciphers->gcm, EVP_CTRL_AEAD_SET_IVLEN,
								SEALED_IV_BYTES, NULL) <= 0)
			return false;
	}
	return EVP_CipherInit_ex(ciphers->gcm, NULL, NULL, key, NULL, 1) > 0;
}

static bool
load_term(DekCiphers *ciphers, const uint8 *key)
{
	if (ciphers->term == NULL)
	{
		ciphers->term = spare_hmac ? spare_hmac : hmac_sha256_create();
		spare_hmac = NULL;
		if (ciphers->term == NULL)
			return false;
	}
	memcpy(ciphers->term_key, key, sizeof(ciphers->term_key));
	ciphers->term_is_used = false;
	return EVP_MAC_init(ciphers->term, key, sizeof(ciphers->term_key), NULL) > 0;
}

/*
 * Free a context, or keep it as the spare one: setting a key overwrites all that
 * it has of the last.
 */
static void
release_hmac(EVP_MAC_CTX *ctx)
{
	static const uint8 no_key[32];

	if (ctx != NULL && spare_hmac == NULL &&
		EVP_MAC_init(ctx, no_key, sizeof(no_key), NULL) > 0)
		spare_hmac = ctx;
	else
		EVP_MAC_CTX_free(ctx);
}

/*
 * Set the keys.  A DekCiphers that held another data key is taken over.  On
 * false it can only be freed.
 */
bool
dek_ciphers_load(DekCiphers *ciphers, KeyPurpose purpose,
				 const DekSubkeys *subkeys)
{
	ciphers->purpose = purpose;
	if (purpose == PURPOSE_DATA)
		return load_gcm(ciphers, subkeys->gcm);

	memcpy(ciphers->siv_key, subkeys->siv, sizeof(ciphers->siv_key));
	if (ciphers->siv == NULL)
		ciphers->siv = EVP_CIPHER_CTX_new();
	return ciphers->siv != NULL && load_term(ciphers, subkeys->index);
}

/* Free and wipe; NULL is allowed. */
void
dek_ciphers_free(DekCiphers *ciphers)
{
	if (ciphers == NULL)
		return;
	EVP_CIPHER_CTX_free(ciphers->gcm);
	EVP_CIPHER_CTX_free(ciphers->siv);
	release_hmac(ciphers->term);
	OPENSSL_clear_free(ciphers, sizeof(*ciphers));
}

/*
 * Feed the additional data and then the body, which is transformed in place.
 */
static bool
cipher_run(EVP_CIPHER_CTX *ctx, const uint8 *aad, size_t aad_len,
		   uint8 *out, const uint8 *in, size_t len)
{
	int			out_len;

	return EVP_CipherUpdate(ctx, NULL, &out_len, aad, (int) aad_len) > 0 &&
		EVP_CipherUpdate(ctx, out, &out_len, in, (int) len) > 0;
}

/*
 * Seal body (kind byte and plaintext, at least one byte) in place.
 *
 * For SEALED_GCM iv holds a fresh random IV, and tag is written.  For
 * SEALED_SIV the synthetic IV is written to iv, and tag is not used.
 */
bool
aead_seal(DekCiphers *ciphers, SealedAlgorithm algorithm,
		  const uint8 *aad, size_t aad_len,
		  uint8 *iv, uint8 *body, size_t body_len, uint8 *tag)
{
	EVP_CIPHER_CTX *ctx;
	int			out_len;

	if (ciphers->purpose != algorithm_purpose(algorithm))
		return false;

	if (algorithm == SEALED_GCM)
	{
		ctx = ciphers->gcm;
		return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, 1) > 0 &&
			cipher_run(ctx, aad, aad_len, body, body, body_len) &&
			EVP_CipherFinal_ex(ctx, NULL, &out_len) > 0 &&
			EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG,
								SEALED_TAG_BYTES, tag) > 0;
	}

	ctx = ciphers->siv;
	return EVP_CipherInit_ex(ctx, siv_cipher, NULL, ciphers->siv_key, NULL, 1) > 0 &&
		cipher_run(ctx, aad, aad_len, body, body, body_len) &&
		EVP_CipherFinal_ex(ctx, NULL, &out_len) > 0 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG,
							SEALED_IV_BYTES, iv) > 0;
}

/*
 * Open value's body into body, value->body_len bytes.  False where the value
 * is not authentic; body is then wiped.
 */
bool
aead_open(DekCiphers *ciphers, const SealedValue *value,
		  const uint8 *aad, size_t aad_len, uint8 *body)
{
	EVP_CIPHER_CTX *ctx;
	int			out_len;
	bool		ok;

	if (ciphers->purpose != algorithm_purpose(value->algorithm))
		return false;

	if (value->algorithm == SEALED_GCM)
	{
		ctx = ciphers->gcm;
		ok = EVP_CipherInit_ex(ctx, NULL, NULL, NULL, value->iv, 0) > 0 &&
			EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SEALED_TAG_BYTES,
								unconstify(uint8 *, value->tag)) > 0;
	}
	else
	{
		ctx = ciphers->siv;
		ok = EVP_CipherInit_ex(ctx, siv_cipher, NULL, ciphers->siv_key, NULL, 0) > 0 &&
			EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SEALED_IV_BYTES,
								unconstify(uint8 *, value->iv)) > 0;
	}

	ok = ok &&
		cipher_run(ctx, aad, aad_len, body, value->body, value->body_len) &&
		EVP_CipherFinal_ex(ctx, NULL, &out_len) > 0;
	if (!ok)
		secret_wipe(body, value->body_len);
	return ok;
}

/*
 * Hash a plaintext into a term: HMAC-SHA-256 over the context after its
 * length, the kind byte, and the plaintext.
 */
bool
term_hash(DekCiphers *ciphers, const uint8 *context, size_t context_len,
		  SealedKind kind, const uint8 *plaintext, size_t len,
		  uint8 term[TERM_MAX_BYTES])
{
	EVP_MAC_CTX *ctx = ciphers->term;
	uint8		prefix[4];
	uint8		kind_byte = (uint8) kind;
	size_t		term_len;

	if (ciphers->purpose != PURPOSE_INDEX)
		return false;

	/* OpenSSL before 3.0.3 cannot start again with the key that is set. */
	if (ciphers->term_is_used &&
		EVP_MAC_init(ctx, ciphers->term_key, sizeof(ciphers->term_key), NULL) <= 0)
		return false;
	ciphers->term_is_used = true;
	bytes_put_u32(prefix, (uint32) context_len);
	return EVP_MAC_update(ctx, prefix, sizeof(prefix)) > 0 &&
		EVP_MAC_update(ctx, context, context_len) > 0 &&
		EVP_MAC_update(ctx, &kind_byte, 1) > 0 &&
		EVP_MAC_update(ctx, plaintext, len) > 0 &&
		EVP_MAC_final(ctx, term, &term_len, TERM_MAX_BYTES) > 0;
}

/* Fill len bytes from the system's generator. */
static bool
entropy(uint8 *out, size_t len)
{
	while (len > 0)
	{
		size_t		part = Min(len, ENTROPY_MAX_BYTES);

		if (getentropy(out, part) != 0)
			return false;
		out += part;
		len -= part;
	}
	return true;
}

/*
 * Take a random IV that no other value gets.  False where the system has no
 * randomness to give.
 */
bool
random_iv(uint8 iv[SEALED_IV_BYTES])
{
	if (iv_pool_left == 0 || iv_pool_pid != MyProcPid)
	{
		if (!entropy(iv_pool[0], iv_pool_next * SEALED_IV_BYTES))
			return false;
		iv_pool_left = iv_pool_next;
		iv_pool_next = Min(iv_pool_next * IV_POOL_GROWTH, IV_POOL_SIZE);
		iv_pool_pid = MyProcPid;
	}
	memcpy(iv, iv_pool[--iv_pool_left], SEALED_IV_BYTES);
	return true;
}

/* Drop what is left of the pool; called when a transaction ends. */
void
random_iv_forget(void)
{
	iv_pool_left = 0;
	iv_pool_next = IV_POOL_FIRST;
}

/*
 * Wrap a data key under a local KEK: AES-256-GCM with a random IV of
 * WRAP_IV_BYTES.  Writes iv, body (DEK_BYTES) and tag (WRAP_TAG_BYTES).
 */
bool
dek_wrap(const uint8 kek[32], const Dek *dek, const uint8 *aad, size_t aad_len,
		 uint8 *iv, uint8 *body, uint8 *tag)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int			out_len;
	bool		ok;

	ok = ctx != NULL && fetch_algorithms() &&
		entropy(iv, WRAP_IV_BYTES) &&
		EVP_CipherInit_ex(ctx, gcm_cipher, NULL, kek, iv, 1) > 0 &&
		cipher_run(ctx, aad, aad_len, body, dek->bytes, DEK_BYTES) &&
		EVP_CipherFinal_ex(ctx, NULL, &out_len) > 0 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, WRAP_TAG_BYTES, tag) > 0;
	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

/*
 * Unwrap a data key.  False where it was not wrapped under this KEK with this
 * additional data; *dek is then wiped.
 */
bool
dek_unwrap(const uint8 kek[32],
		   const uint8 *iv, const uint8 *body, const uint8 *tag,
		   const uint8 *aad, size_t aad_len, Dek *dek)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int			out_len;
	bool		ok;

	ok = ctx != NULL && fetch_algorithms() &&
		EVP_CipherInit_ex(ctx, gcm_cipher, NULL, kek, iv, 0) > 0 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, WRAP_TAG_BYTES,
							unconstify(uint8 *, tag)) > 0 &&
		cipher_run(ctx, aad, aad_len, dek->bytes, body, DEK_BYTES) &&
		EVP_CipherFinal_ex(ctx, NULL, &out_len) > 0;
	EVP_CIPHER_CTX_free(ctx);
	if (!ok)
		secret_wipe(dek, sizeof(*dek));
	return ok;
}
