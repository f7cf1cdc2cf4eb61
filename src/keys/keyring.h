/*-------------------------------------------------------------------------
 *
 * keyring.h
 *	  Sealing, opening and hashing of values for a tenant.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_KEYRING_H
#define ENVELOPE_KEYRING_H

#include "compat.h"
#include "crypto/aead.h"
#include "crypto/format.h"
#include "kms/kms.h"

/* For whom and where a value is; both are bound into it */
typedef struct ValueLabel
{
	const char *tenant;			/* UTF-8, zero-terminated */
	const char *context;		/* UTF-8 */
	size_t		context_len;
} ValueLabel;

extern void keyring_init(void);

extern bytea *keyring_seal(const ValueLabel *label, SealedAlgorithm algorithm,
						   SealedKind kind, const char *plaintext, size_t len);
extern struct varlena *keyring_open(const ValueLabel *label,
									const bytea *sealed, SealedKind *kind);
extern struct varlena *keyring_read(const ValueLabel *label,
									const bytea *sealed, SealedKind *kind);
extern bool keyring_is_current(const ValueLabel *label, const bytea *sealed);
extern bool keyring_holds(const ValueLabel *label, const bytea *sealed,
						  SealedKind kind, const char *plaintext, size_t len);
extern void keyring_term(const ValueLabel *label, SealedKind kind,
						 const char *plaintext, size_t len,
						 uint8 term[TERM_MAX_BYTES]);

extern bool keyring_fill_unwrap(int64 key_id, const char *tenant,
								KmsPriority priority, KmsRequest *request);
pg_noreturn extern void keyring_report(const KmsRequest *request,
									   KmsOutcome outcome, const char *detail);

#endif							/* ENVELOPE_KEYRING_H */
