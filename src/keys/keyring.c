/*-------------------------------------------------------------------------
 *
 * keyring.c
 *	  Sealing, opening and hashing of values for a tenant: which key may be
 *	  used for what, and where it comes from.
 *
 * A value needs a key that is its tenant's and may be used now.  Whether it may
 * is asked of the memo; the key itself comes from the first of
 *
 *	1. this transaction's own table (keys/uses.c);
 *	2. the shared cache;
 *	3. the KMS, through the worker, after the tables have been read anew.
 *
 * For row after row under the same key this comes down to a few comparisons:
 * same key, same tenant, nothing evicted, nothing invalidated.
 *
 * When the epoch of the cache has moved, a key is looked at again:
 * invalidations are accepted, the memo is asked, the lease is taken anew.
 *
 * All texts here are UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "compat.h"
#include "errors.h"
#include "keys/cache.h"
#include "keys/encoding.h"
#include "keys/keyring.h"
#include "keys/memo.h"
#include "keys/tenant.h"
#include "keys/uses.h"
#include "kms/ask.h"
#include "settings.h"
#include "shmem.h"

/*
 * A key that the KMS denied is asked for again after this, so that a scan over
 * rows that cannot be opened does not ask for each of them.
 */
#define DENIED_MS 1000

/* What a key is to be used for */
typedef enum KeyUsage
{
	USAGE_SEAL,
	USAGE_OPEN
} KeyUsage;

/* Tenants that this transaction has been warned about, with NULL results */
static HTAB *warned = NULL;

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			random_iv_forget();
			key_uses_forget();
			warned = NULL;
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			break;
	}
}

/* Called from _PG_init. */
void
keyring_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
}

/* Refuse (VE004), without a word on which part of the value is wrong. */
pg_noreturn static void
report_corrupt(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_CORRUPT),
			 errmsg("the value cannot be opened"),
			 errdetail("It is damaged or no sealed value, or it was sealed for another tenant or context.")));
}

pg_noreturn static void
report_openssl(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("OpenSSL failed")));
}

/* Throw (VE007) where the session is bound to another tenant. */
static void
check_session_tenant(const char *tenant)
{
	size_t		len;

	if (envelope_tenant == NULL || envelope_tenant[0] == '\0')
		return;
	len = strlen(envelope_tenant);
	if (strcmp(utf8_from_server(envelope_tenant, &len), tenant) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_OTHER_TENANT),
				 errmsg("the session is bound to another tenant"),
				 errdetail("envelope.tenant is \"%s\".", envelope_tenant)));
}

/*
 * The key that seals for a tenant, or throw.
 */
static int64
active_key(const char *tenant, KeyPurpose purpose)
{
	TenantRow	row;

	if (strlen(tenant) > TENANT_MAX_BYTES || !memo_tenant(tenant, &row))
		tenant_report_unknown(tenant);
	tenant_check_usable(tenant, row.state);
	if (row.active_keys[purpose] == NO_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_UNKNOWN_KEY),
				 errmsg("tenant \"%s\" has no active %s key",
						tenant_text(tenant), purpose_name(purpose))));
	return row.active_keys[purpose];
}

/*
 * May this key open a value of this tenant?  Throws where it may not.
 */
static void
check_may_open(int64 key_id, const char *tenant, KeyPurpose purpose)
{
	TenantRow	tenant_row;
	const KeyMemo *key = memo_key(key_id);
	bool		is_known = key != NULL;
	bool		is_tenants = is_known && strcmp(key->tenant, tenant) == 0;

	/*
	 * Of a tenant that does not exist nothing else is said.  Asking the memo
	 * for it ends what the memo said of the key.
	 */
	if (!is_tenants &&
		(strlen(tenant) > TENANT_MAX_BYTES || !memo_tenant(tenant, &tenant_row)))
		tenant_report_unknown(tenant);
	if (!is_known)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_UNKNOWN_KEY),
				 errmsg("this database has no key " INT64_FORMAT, key_id),
				 errdetail("The value was sealed in another database, or restored before its key."),
				 errhint("Restore the rows of the schema \"%s\" from the same backup.",
						 ENVELOPE_SCHEMA)));
	if (!is_tenants || key->purpose != purpose)
		report_corrupt();
	if (key->state == KEY_DESTROYED)
		tenant_report_key_destroyed(tenant);
	tenant_check_usable(tenant, key->tenant_state);
}

/*
 * Fill in a request to unwrap a key of a tenant from the tables as they are
 * now.  The generation is read first, so that a key asked for before an
 * eviction is never stored after it.  False where the key has gone or must
 * not be used, which the memo may not know yet.
 */
bool
keyring_fill_unwrap(int64 key_id, const char *tenant, KmsPriority priority,
					KmsRequest *request)
{
	KeyRow		row;
	TenantRow	tenant_row;
	uint64		generation = dek_cache_generation(MyDatabaseId, tenant);

	if (!catalog_read_tenant(tenant, &tenant_row) ||
		tenant_row.state != TENANT_ACTIVE ||
		!catalog_read_wrapped(key_id, &row, request) ||
		strcmp(row.tenant, tenant) != 0 ||
		request->wrapped_len == 0)
		return false;

	request->operation = KMS_UNWRAP;
	request->priority = priority;
	request->database = MyDatabaseId;
	request->generation = generation;
	return true;
}

/* Throw what a KMS call ended in. */
void
keyring_report(const KmsRequest *request, KmsOutcome outcome, const char *detail)
{
	const char *tenant = tenant_text(request->tenant);

	switch (outcome)
	{
		case KMS_DENIED:
			ereport(ERROR,
					(errcode(ERRCODE_ENVELOPE_DENIED),
					 errmsg("the KMS denied the key of tenant \"%s\"", tenant),
					 errdetail("KEK \"%s\": %s", request->kek, detail)));
			break;
		case KMS_CORRUPT:
			ereport(ERROR,
					(errcode(ERRCODE_ENVELOPE_CORRUPT),
					 errmsg("the key of tenant \"%s\" could not be unwrapped", tenant),
					 errdetail("KEK \"%s\": %s", request->kek, detail)));
			break;
		case KMS_MISCONFIGURED:
			ereport(ERROR,
					(errcode(ERRCODE_ENVELOPE_UNREACHABLE),
					 errmsg("KEK \"%s\" cannot be used as it is set up", request->kek),
					 errdetail("%s", detail)));
			break;
		case KMS_OK:
		case KMS_UNREACHABLE:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_UNREACHABLE),
			 errmsg("the KMS could not be reached for the key of tenant \"%s\"", tenant),
			 errdetail("KEK \"%s\": %s", request->kek, detail)));
}

/*
 * Have the worker unwrap a key.  Throws where it cannot be had.
 */
static void
ask_kms(KeyUse *use)
{
	KmsRequest *request = palloc0(sizeof(KmsRequest));
	KmsReply   *reply = palloc(sizeof(KmsReply));
	uint64		epoch = dek_cache_epoch();
	int64		asked_at = boottime_ms();
	bool		ok;

	if (boottime_ms() < use->denied_until)
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_DENIED),
				 errmsg("the KMS denied the key of tenant \"%s\"",
						tenant_text(use->tenant))));

	dek_cache_count_miss();
	if (!keyring_fill_unwrap(use->key_id, use->tenant, KMS_FOREGROUND, request))
	{
		/* What the memo has is old. */
		AcceptInvalidationMessages();
		check_may_open(use->key_id, use->tenant, use->purpose);
		ereport(ERROR,
				(errcode(ERRCODE_ENVELOPE_UNKNOWN_KEY),
				 errmsg("key " INT64_FORMAT " cannot be unwrapped", use->key_id),
				 errdetail("Its row holds no wrapped key, or was changed meanwhile.")));
	}

	kms_call(request, reply);
	if (reply->outcome == KMS_DENIED)
		use->denied_until = boottime_ms() + DENIED_MS;
	if (reply->outcome != KMS_OK)
		keyring_report(request, reply->outcome, reply->detail);
	ok = key_use_load(use, &reply->subkeys);
	secret_wipe(reply, sizeof(*reply));
	if (!ok)
		report_openssl();

	use->epoch = epoch;
	use->values_left = VALUES_PER_LOOK;
	use->lease.generation = request->generation;
	/* No later than the cache's own entry expires, even if it was displaced */
	use->lease.expires_at = asked_at +
		(int64) (envelope_cache_ttl * 1000 * (1 - TTL_JITTER));
	use->lease.may_seal = true;
	use->lease.refresh_due = false;
	pfree(reply);
	pfree(request);
}

/* Ask for a refresh of a key, and go on. */
static void
ask_refresh(KeyUse *use)
{
	KmsRequest *request = palloc0(sizeof(KmsRequest));

	if (keyring_fill_unwrap(use->key_id, use->tenant, KMS_REFRESH, request))
		kms_refresh(request);
	pfree(request);
}

/*
 * Make a key of this transaction's table usable: it is the tenant's, and may
 * be used for this.
 */
static void
ready_use(KeyUse *use, KeyUsage usage)
{
	if (!use->loaded || use->epoch != dek_cache_epoch() ||
		use->values_left <= 0)
	{
		if (!key_use_renew(use))
			ask_kms(use);
		else if (use->lease.refresh_due)
			ask_refresh(use);
	}

	/* Until the second answer a suspect key opens, but seals not. */
	if (usage == USAGE_SEAL && !use->lease.may_seal)
		ask_kms(use);
}

/*
 * The key that seals for a tenant, ready.  Throws where there is none.
 */
static KeyUse *
use_to_seal(const char *tenant, KeyPurpose purpose)
{
	KeyUse	   *use = key_use_last[purpose];
	uint64		sequence;

	shmem_require();
	check_session_tenant(tenant);
	if (use && use->loaded && use->lease.may_seal &&
		use->epoch == dek_cache_epoch() && use->values_left-- > 0 &&
		use->seals_sequence == memo_sequence() &&
		strcmp(use->tenant, tenant) == 0)
		return use;

	if (use == NULL || use->epoch != dek_cache_epoch() || use->values_left <= 0)
		AcceptInvalidationMessages();
	sequence = memo_sequence();
	use = key_use_place(active_key(tenant, purpose), tenant, purpose);
	use->seals_sequence = use->memo_sequence = sequence;
	ready_use(use, USAGE_SEAL);
	key_use_last[purpose] = use;
	return use;
}

/*
 * The key that opens a value of a tenant, ready.  Throws where it may not.
 */
static KeyUse *
use_to_open(int64 key_id, const char *tenant, KeyPurpose purpose)
{
	KeyUse	   *use = key_use_last[purpose];

	shmem_require();
	check_session_tenant(tenant);
	if (use && use->key_id == key_id && use->loaded &&
		use->epoch == dek_cache_epoch() && use->values_left-- > 0 &&
		use->memo_sequence == memo_sequence() &&
		strcmp(use->tenant, tenant) == 0)
		return use;

	if (use == NULL || use->epoch != dek_cache_epoch() || use->values_left <= 0)
		AcceptInvalidationMessages();
	use = key_use_find(key_id);
	if (use == NULL || use->memo_sequence != memo_sequence() ||
		use->purpose != purpose || strcmp(use->tenant, tenant) != 0)
	{
		uint64		sequence = memo_sequence();

		check_may_open(key_id, tenant, purpose);
		use = key_use_place(key_id, tenant, purpose);
		use->memo_sequence = sequence;
	}
	ready_use(use, USAGE_OPEN);
	key_use_last[purpose] = use;
	return use;
}

/*
 * Seal a plaintext for a tenant under its active key; the result is palloc'd.
 * Throws VE001, VE002, VE003, VE004 (the key), VE005, VE006, VE007, VE008, and
 * 54000 where the sealed value would be larger than PostgreSQL allows.
 */
bytea *
keyring_seal(const ValueLabel *label, SealedAlgorithm algorithm,
			 SealedKind kind, const char *plaintext, size_t len)
{
	size_t		size = sealed_size(algorithm, len);
	KeyUse	   *use;
	bytea	   *sealed;
	uint8	   *iv;
	uint8	   *body;

	if (size > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a value of %zu bytes is too large to be sealed", len),
				 errdetail("Sealed it would have %zu bytes, of at most %zu.",
						   size, (size_t) (MaxAllocSize - VARHDRSZ))));

	use = use_to_seal(label->tenant, algorithm_purpose(algorithm));
	key_use_make_aad(use, algorithm, label->context, label->context_len);

	sealed = palloc(VARHDRSZ + size);
	SET_VARSIZE(sealed, VARHDRSZ + size);
	sealed_write_header((uint8 *) VARDATA(sealed), algorithm, use->key_id);
	iv = (uint8 *) VARDATA(sealed) + SEALED_HEADER_BYTES;
	body = iv + SEALED_IV_BYTES;
	body[0] = (uint8) kind;
	memcpy(body + SEALED_KIND_BYTES, plaintext, len);

	if (algorithm == SEALED_GCM && !random_iv(iv))
	{
		secret_wipe(body, SEALED_KIND_BYTES + len);
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("the system has no random bytes to give")));
	}
	if (!aead_seal(use->ciphers, algorithm, use->aad, use->aad_len,
				   iv, body, SEALED_KIND_BYTES + len, body + SEALED_KIND_BYTES + len))
	{
		secret_wipe(body, SEALED_KIND_BYTES + len);
		report_openssl();
	}
	return sealed;
}

/*
 * Open a value; the result is a palloc'd varlena with the plaintext, and *kind
 * says what it was sealed as.  Text is UTF-8, and valid.
 *
 * Throws VE004 for whatever is not a value of this tenant and context, VE009
 * where its key is not in this database, and what keyring_seal throws.
 */
struct varlena *
keyring_open(const ValueLabel *label, const bytea *sealed, SealedKind *kind)
{
	SealedValue value;
	KeyUse	   *use;
	struct varlena *result;
	uint8	   *body;
	size_t		len;

	if (!sealed_parse((const uint8 *) VARDATA_ANY(sealed),
					  VARSIZE_ANY_EXHDR(sealed), &value))
		report_corrupt();
	use = use_to_open(value.key_id, label->tenant, algorithm_purpose(value.algorithm));
	key_use_make_aad(use, value.algorithm, label->context, label->context_len);

	/*
	 * The kind byte is opened into the last byte of what becomes the length
	 * word, so that the plaintext lands where it has to be.
	 */
	len = value.body_len - SEALED_KIND_BYTES;
	result = palloc(VARHDRSZ + len);
	body = (uint8 *) VARDATA(result) - SEALED_KIND_BYTES;
	if (!aead_open(use->ciphers, &value, use->aad, use->aad_len, body))
		report_corrupt();
	*kind = (SealedKind) body[0];
	SET_VARSIZE(result, VARHDRSZ + len);
	if (*kind != KIND_TEXT && *kind != KIND_BYTEA)
		report_corrupt();
	return result;
}

/* Warn once a tenant and transaction that values open as NULL. */
static void
warn_unreadable(const char *tenant, const ErrorData *edata)
{
	bool		found;

	if (warned == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = ctl.entrysize = TENANT_MAX_BYTES + 1;
		ctl.hcxt = TopTransactionContext;
		warned = hash_create("envelope unreadable tenants", 16, &ctl,
							 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	hash_search(warned, tenant, HASH_ENTER, &found);
	if (found)
		return;

	ereport(WARNING,
			(errcode(edata->sqlerrcode),
			 errmsg("values of tenant \"%s\" are read as NULL", tenant_text(tenant)),
			 errdetail("%s", edata->message),
			 errhint("envelope.unreadable is \"null\".")));
}

/*
 * What envelope.unreadable = null does: NULL instead of VE002, VE005, VE006.
 * These are thrown before anything is held that an abort would have to
 * release, but for what kms_call holds and itself gives back.
 */
static struct varlena *
open_or_null(const ValueLabel *label, const bytea *sealed, SealedKind *kind)
{
	MemoryContext context = CurrentMemoryContext;
	struct varlena *volatile result = NULL;

	PG_TRY();
	{
		result = keyring_open(label, sealed, kind);
	}
	PG_CATCH();
	{
		ErrorData  *edata;
		int			code = geterrcode();

		if (code != ERRCODE_ENVELOPE_DENIED &&
			code != ERRCODE_ENVELOPE_DESTROYED &&
			code != ERRCODE_ENVELOPE_SUSPENDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		warn_unreadable(label->tenant, edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	return result;
}

/*
 * Open a value for somebody who reads it: as keyring_open does, but NULL where
 * it is unreadable and envelope.unreadable says null.
 */
struct varlena *
keyring_read(const ValueLabel *label, const bytea *sealed, SealedKind *kind)
{
	if (envelope_unreadable == UNREADABLE_NULL)
		return open_or_null(label, sealed, kind);
	return keyring_open(label, sealed, kind);
}

/*
 * Is this value, which has been opened for the label, under the key that seals
 * for its tenant now?
 */
bool
keyring_is_current(const ValueLabel *label, const bytea *sealed)
{
	SealedValue value;

	return sealed_parse((const uint8 *) VARDATA_ANY(sealed),
						VARSIZE_ANY_EXHDR(sealed), &value) &&
		value.key_id == active_key(label->tenant, algorithm_purpose(value.algorithm));
}

/*
 * Is this value the plaintext, sealed for the label under the key that seals
 * for its tenant now?  A value that cannot be opened is not.  Throws what
 * keyring_seal throws.
 */
bool
keyring_holds(const ValueLabel *label, const bytea *sealed, SealedKind kind,
			  const char *plaintext, size_t len)
{
	SealedValue value;
	KeyUse	   *use;
	uint8	   *body;
	bool		same;

	if (!sealed_parse((const uint8 *) VARDATA_ANY(sealed),
					  VARSIZE_ANY_EXHDR(sealed), &value) ||
		value.body_len != SEALED_KIND_BYTES + len)
		return false;
	use = use_to_seal(label->tenant, algorithm_purpose(value.algorithm));
	if (use->key_id != value.key_id)
		return false;
	key_use_make_aad(use, value.algorithm, label->context, label->context_len);

	body = palloc(value.body_len);
	same = aead_open(use->ciphers, &value, use->aad, use->aad_len, body) &&
		body[0] == kind &&
		memcmp(body + SEALED_KIND_BYTES, plaintext, len) == 0;
	secret_wipe(body, value.body_len);
	pfree(body);
	return same;
}

/*
 * Hash a plaintext into a term, under the tenant's index key.
 */
void
keyring_term(const ValueLabel *label, SealedKind kind, const char *plaintext,
			 size_t len, uint8 term[TERM_MAX_BYTES])
{
	KeyUse	   *use = use_to_seal(label->tenant, PURPOSE_INDEX);

	if (!term_hash(use->ciphers, (const uint8 *) label->context, label->context_len,
				   kind, (const uint8 *) plaintext, len, term))
		report_openssl();
}
