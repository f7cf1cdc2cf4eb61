/*-------------------------------------------------------------------------
 *
 * accept.c
 *	  What is verified of an answer before anybody gets it.
 *
 * Each unwrapped key is checked against key_check, so that neither a KMS nor
 * whoever can write tenant_keys can pass one tenant's key off as another's.
 * Where an answer turns out not to be what was asked for, it is made a failed
 * one, and the key in it is wiped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "crypto/derive.h"
#include "keys/cache.h"
#include "kms/accept.h"
#include "kms/provider.h"

static bool
reject(KmsAnswer *answer, KmsOutcome outcome, const char *detail)
{
	secret_wipe(&answer->dek, sizeof(answer->dek));
	answer_set(answer, outcome, HINT_NONE, "%s", detail);
	return false;
}

/* Is this the root of the key that the request is about? */
static bool
is_root_of_key(const KmsRequest *request, const DekRoot *root, KmsAnswer *answer)
{
	uint8		check[KEY_CHECK_BYTES];

	if (!dek_check(root, request->key_id, request->tenant, request->purpose, check))
		return reject(answer, KMS_UNREACHABLE, "OpenSSL failed");
	if (!key_checks_equal(check, request->key_check))
		return reject(answer, KMS_CORRUPT,
					  "wrong key: what was unwrapped is not this tenant's key");
	return true;
}

/* Is what was unwrapped the key that the request is about? */
bool
accept_is_key(const KmsRequest *request, KmsAnswer *answer)
{
	DekRoot		root;
	bool		ok;

	if (!dek_extract(&answer->dek, &root))
		return reject(answer, KMS_UNREACHABLE, "OpenSSL failed");
	ok = is_root_of_key(request, &root, answer);
	secret_wipe(&root, sizeof(root));
	return ok;
}

/* Make the reply to a key that was unwrapped, and store the key. */
bool
accept_unwrapped(const KmsRequest *request, KmsAnswer *answer, KmsReply *reply)
{
	DekId		id = {request->database, request->key_id};
	DekRoot		root;
	bool		ok;

	if (!dek_extract(&answer->dek, &root))
		return reject(answer, KMS_UNREACHABLE, "OpenSSL failed");
	ok = is_root_of_key(request, &root, answer);
	if (ok && !dek_derive(&root, request->purpose, &reply->subkeys))
		ok = reject(answer, KMS_UNREACHABLE, "OpenSSL failed");
	secret_wipe(&root, sizeof(root));
	if (ok)
		(void) dek_cache_store(&id, request->tenant, request->purpose,
							   &reply->subkeys, request->generation);
	return ok;
}

/* Did the KMS give a wrapped key that can be stored? */
bool
accept_wrapped(KmsAnswer *answer)
{
	if (answer->wrapped_len > 0 && answer->wrapped_len <= WRAPPED_DEK_MAX)
		return true;
	return reject(answer, KMS_UNREACHABLE, "the KMS gave no wrapped key");
}

/* Make the reply to a key that was generated. */
bool
accept_generated(const KmsRequest *request, KmsAnswer *answer, KmsReply *reply)
{
	DekRoot		root;
	bool		ok;

	if (!accept_wrapped(answer))
		return false;
	ok = dek_extract(&answer->dek, &root) &&
		dek_check(&root, request->key_id, request->tenant, request->purpose, reply->key_check);
	secret_wipe(&root, sizeof(root));
	if (!ok)
		return reject(answer, KMS_UNREACHABLE, "OpenSSL failed");
	strlcpy(reply->kek_version, answer->kek_version, sizeof(reply->kek_version));
	reply->wrapped_len = answer->wrapped_len;
	memcpy(reply->wrapped, answer->wrapped, answer->wrapped_len);
	return true;
}
