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

extern void memo_init(void);
extern uint64 memo_sequence(void);
extern bool memo_tenant(const char *tenant, TenantRow *row);
extern bool memo_key(int64 key_id, KeyRow *row);

#endif							/* ENVELOPE_MEMO_H */
