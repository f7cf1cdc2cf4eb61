/*
 * What the bare work costs, without a database: OpenSSL sealing and opening
 * short values in a loop, with contexts that keep their key from value to
 * value, as envelope does.
 *
 *		openssl_loop VALUES BYTES
 *
 * Prints lines of "what nanoseconds", per value.  AES-256-GCM has IVs of 16
 * bytes from a pool of 64, and 40 bytes of additional data; AES-256-SIV is
 * keyed anew for every value, as OpenSSL wants it; the HMAC starts from a
 * context that has the key.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>

#define IV_BYTES 16
#define TAG_BYTES 16
#define AAD_BYTES 40
#define POOL 64

static unsigned char key[64] = "not a secret, but 64 bytes long, as AES-256-SIV wants its keys.";
static unsigned char aad[AAD_BYTES];

static void
check(int ok, const char *what)
{
	if (ok <= 0)
	{
		fprintf(stderr, "OpenSSL failed: %s\n", what);
		exit(1);
	}
}

static double
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static void
fresh_iv(unsigned char *iv)
{
	static unsigned char pool[POOL][IV_BYTES];
	static int	left = 0;

	if (left == 0)
	{
		for (size_t at = 0; at < sizeof(pool); at += 256)
			check(getentropy((unsigned char *) pool + at, 256) == 0, "getentropy");
		left = POOL;
	}
	memcpy(iv, pool[--left], IV_BYTES);
}

int
main(int argc, char **argv)
{
	int			values = argc == 3 ? atoi(argv[1]) : 0;
	int			bytes = argc == 3 ? atoi(argv[2]) : 0;
	EVP_CIPHER *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	EVP_CIPHER *siv = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
	EVP_MAC    *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	EVP_CIPHER_CTX *siv_ctx = EVP_CIPHER_CTX_new();
	EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
	char		digest[] = "SHA256";
	OSSL_PARAM	params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end()
	};
	unsigned char *plain;
	unsigned char *sealed;
	unsigned char *opened;
	size_t		stride = IV_BYTES + bytes + TAG_BYTES;
	double		start;
	int			len;
	size_t		mac_len;

	if (values <= 0 || bytes <= 0)
	{
		fprintf(stderr, "usage: %s VALUES BYTES\n", argv[0]);
		return 2;
	}
	plain = calloc(1, bytes);
	opened = calloc(1, bytes + 32);
	sealed = malloc(stride * values);
	memset(sealed, 0, stride * values);	/* no page faults while we measure */
	check(plain && opened && sealed, "memory");
	check(EVP_CipherInit_ex(ctx, gcm, NULL, NULL, NULL, 1), "init");
	check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, IV_BYTES, NULL), "IV length");
	check(EVP_CipherInit_ex(ctx, NULL, NULL, key, NULL, 1), "key");

	start = now_ns();
	for (int i = 0; i < values; i++)
	{
		unsigned char *at = sealed + i * stride;

		fresh_iv(at);
		check(EVP_CipherInit_ex(ctx, NULL, NULL, NULL, at, 1), "IV");
		check(EVP_CipherUpdate(ctx, NULL, &len, aad, AAD_BYTES), "aad");
		check(EVP_CipherUpdate(ctx, at + IV_BYTES, &len, plain, bytes), "update");
		check(EVP_CipherFinal_ex(ctx, opened, &len), "final");
		check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES,
								  at + IV_BYTES + bytes), "tag");
	}
	printf("seal %.1f\n", (now_ns() - start) / values);

	start = now_ns();
	for (int i = 0; i < values; i++)
	{
		unsigned char *at = sealed + i * stride;

		check(EVP_CipherInit_ex(ctx, NULL, NULL, NULL, at, 0), "IV");
		check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES,
								  at + IV_BYTES + bytes), "tag");
		check(EVP_CipherUpdate(ctx, NULL, &len, aad, AAD_BYTES), "aad");
		check(EVP_CipherUpdate(ctx, opened, &len, at + IV_BYTES, bytes), "update");
		check(EVP_CipherFinal_ex(ctx, opened, &len), "open");
	}
	printf("open %.1f\n", (now_ns() - start) / values);

	start = now_ns();
	for (int i = 0; i < values; i++)
	{
		unsigned char *at = sealed + i * stride;

		check(EVP_CipherInit_ex(siv_ctx, siv, NULL, key, NULL, 1), "SIV key");
		check(EVP_CipherUpdate(siv_ctx, NULL, &len, aad, AAD_BYTES), "aad");
		check(EVP_CipherUpdate(siv_ctx, at + IV_BYTES, &len, plain, bytes), "update");
		check(EVP_CipherFinal_ex(siv_ctx, opened, &len), "final");
		check(EVP_CIPHER_CTX_ctrl(siv_ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, at), "tag");
	}
	printf("seal_deterministic %.1f\n", (now_ns() - start) / values);

	check(EVP_MAC_init(mac, key, 32, params), "HMAC key");
	start = now_ns();
	for (int i = 0; i < values; i++)
	{
		EVP_MAC_CTX *copy = EVP_MAC_CTX_dup(mac);

		check(copy != NULL, "copy");
		check(EVP_MAC_update(copy, aad, AAD_BYTES), "update");
		check(EVP_MAC_update(copy, plain, bytes), "update");
		check(EVP_MAC_final(copy, opened, &mac_len, 32), "final");
		EVP_MAC_CTX_free(copy);
	}
	printf("term %.1f\n", (now_ns() - start) / values);
	return 0;
}
