/*-------------------------------------------------------------------------
 *
 * destruction.h
 *	  The end of tenants: requests, approvals, and what is done in the end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_DESTRUCTION_H
#define ENVELOPE_DESTRUCTION_H

#include "lib/stringinfo.h"

#define DESTROY_DAYS_MIN	7
#define DESTROY_DAYS_MAX	30

extern void destruction_request(const char *tenant, int64 after_ms,
								const char *loss);
extern int	destruction_approve(const char *tenant);
extern void destruction_cancel(const char *tenant);
extern int	destruction_of_due(void);

#endif							/* ENVELOPE_DESTRUCTION_H */
