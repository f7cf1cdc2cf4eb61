/*-------------------------------------------------------------------------
 *
 * endpoint.h
 *	  How each KMS does, and whether it makes sense to ask it now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ENDPOINT_H
#define ENVELOPE_ENDPOINT_H

#include "kms/kms.h"

typedef struct Endpoint Endpoint;

extern Endpoint *endpoint_find(const char *host, uint64 credential);
extern void endpoint_hold(Endpoint *endpoint);
extern void endpoint_release(Endpoint *endpoint);
extern bool endpoint_admits(Endpoint *endpoint);
extern int64 endpoint_bulk_from(const Endpoint *endpoint);
extern void endpoint_note(Endpoint *endpoint, KmsOutcome outcome, KmsHint hint);
extern int64 endpoint_refuses_until(const Endpoint *endpoint);
extern void endpoints_forget(void);

#endif							/* ENVELOPE_ENDPOINT_H */
