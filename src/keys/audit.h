/*-------------------------------------------------------------------------
 *
 * audit.h
 *	  Who did what to whose keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_AUDIT_H
#define ENVELOPE_AUDIT_H

extern void audit_init(void);
extern void audit_record(const char *event, const char *tenant,
						 const char *kek, int64 key_id, const char *details);
extern void audit_record_tenants(const char *event, char **tenants,
								 int ntenants, const char *kek);
extern void audit_log_only(const char *event, const char *tenant,
						   const char *details);
extern const char *audit_login(void);

#endif							/* ENVELOPE_AUDIT_H */
