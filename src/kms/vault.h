/*-------------------------------------------------------------------------
 *
 * vault.h
 *	  What the files about Vault share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_VAULT_H
#define ENVELOPE_VAULT_H

#include "kms/credential.h"

extern void vault_begin_request(HttpRequest *request, const char *method,
								const char *address, const Credential *credential);

#endif							/* ENVELOPE_VAULT_H */
