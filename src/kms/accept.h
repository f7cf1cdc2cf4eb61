/*-------------------------------------------------------------------------
 *
 * accept.h
 *	  What is verified of an answer before anybody gets it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ACCEPT_H
#define ENVELOPE_ACCEPT_H

#include "kms/kms.h"

extern bool accept_is_key(const KmsRequest *request, KmsAnswer *answer);
extern bool accept_unwrapped(const KmsRequest *request, KmsAnswer *answer,
							 KmsReply *reply);
extern bool accept_wrapped(KmsAnswer *answer);
extern bool accept_generated(const KmsRequest *request, KmsAnswer *answer,
							 KmsReply *reply);

#endif							/* ENVELOPE_ACCEPT_H */
