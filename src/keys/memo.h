/*-------------------------------------------------------------------------
 *
 * memo.h
 *	  What this backend knows of tenants and keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_MEMO_H
#define ENVELOPE_MEMO_H

#include "keys/catalog.h"

/* A key, and whether its tenant may be used */
typedef struct KeyMemo
{
	int64		key_id;			/* the hash key */
	const char *tenant;			/* UTF-8 */
	TenantState tenant_state;
	KeyPurpose	purpose;
	KeyState	state;
} KeyMemo;

extern void memo_init(void);
extern uint64 memo_sequence(void);
extern bool memo_tenant(const char *tenant, TenantRow *row);
extern const KeyMemo *memo_key(int64 key_id);

#endif							/* ENVELOPE_MEMO_H */
