/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings of envelope.  docs/configuration.md describes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SETTINGS_H
#define ENVELOPE_SETTINGS_H

/* What opening does with a value whose key is denied, destroyed, suspended */
typedef enum UnreadableMode
{
	UNREADABLE_ERROR,
	UNREADABLE_NULL
} UnreadableMode;

extern int	envelope_cache_size;	/* keys */
extern int	envelope_cache_ttl; /* seconds */
extern int	envelope_outage_grace;	/* seconds */
extern int	envelope_kms_timeout;	/* milliseconds */
extern int	envelope_kms_connections;
extern char *envelope_local_kek_directory;
extern char *envelope_local_kek_faults;
extern char *envelope_credentials_file;
extern char *envelope_ca_file;
extern bool envelope_log_kms_calls;
extern char *envelope_tenant;
extern int	envelope_unreadable;	/* UnreadableMode */
extern bool envelope_allow_drop_extension;
extern bool envelope_stored_form;
extern int	envelope_retired_key_retention; /* minutes; -1: never */
extern int	envelope_destroy_approvals;
extern int	envelope_maintenance_max_lag;	/* kB; -1: none */
extern bool envelope_allow_plaintext_copies;

extern void settings_define(void);

#endif							/* ENVELOPE_SETTINGS_H */
