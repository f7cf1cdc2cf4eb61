/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  The SQLSTATEs of envelope, class VE.
 *
 * Applications decide by these what to retry, so they never change their
 * meaning.  No message, detail, hint or context that goes with them holds
 * plaintext, key bytes, credentials or what a KMS replied.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_ERRORS_H
#define ENVELOPE_ERRORS_H

#include "utils/elog.h"

#define ERRCODE_ENVELOPE_UNKNOWN_TENANT		MAKE_SQLSTATE('V', 'E', '0', '0', '1')
#define ERRCODE_ENVELOPE_DENIED				MAKE_SQLSTATE('V', 'E', '0', '0', '2')
#define ERRCODE_ENVELOPE_UNREACHABLE		MAKE_SQLSTATE('V', 'E', '0', '0', '3')
#define ERRCODE_ENVELOPE_CORRUPT			MAKE_SQLSTATE('V', 'E', '0', '0', '4')
#define ERRCODE_ENVELOPE_DESTROYED			MAKE_SQLSTATE('V', 'E', '0', '0', '5')
#define ERRCODE_ENVELOPE_SUSPENDED			MAKE_SQLSTATE('V', 'E', '0', '0', '6')
#define ERRCODE_ENVELOPE_OTHER_TENANT		MAKE_SQLSTATE('V', 'E', '0', '0', '7')
#define ERRCODE_ENVELOPE_NOT_RUNNING		MAKE_SQLSTATE('V', 'E', '0', '0', '8')
#define ERRCODE_ENVELOPE_UNKNOWN_KEY		MAKE_SQLSTATE('V', 'E', '0', '0', '9')

#endif							/* ENVELOPE_ERRORS_H */
