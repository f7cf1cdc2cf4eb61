/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Every configuration parameter of envelope.
 *
 * No setting holds a secret: where one is needed, the setting holds the path
 * of a file.  Settings that size shared memory exist only in a server that
 * preloads the library; in any other they would promise what is not there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/plancache.h"

#include "kms/faults.h"
#include "settings.h"

int			envelope_cache_size = 500;
int			envelope_cache_ttl = 300;
int			envelope_outage_grace = 600;
int			envelope_kms_timeout = 5000;
int			envelope_kms_connections = 64;
char	   *envelope_local_kek_directory = NULL;
char	   *envelope_local_kek_faults = NULL;
char	   *envelope_credentials_file = NULL;
char	   *envelope_ca_file = NULL;
bool		envelope_log_kms_calls = false;
char	   *envelope_tenant = NULL;
int			envelope_unreadable = UNREADABLE_ERROR;
bool		envelope_allow_drop_extension = false;
bool		envelope_stored_form = false;
int			envelope_retired_key_retention = -1;
int			envelope_destroy_approvals = 1;
int			envelope_maintenance_max_lag = -1;
bool		envelope_allow_plaintext_copies = false;

static const struct config_enum_entry unreadable_options[] = {
	{"error", UNREADABLE_ERROR, false},
	{"null", UNREADABLE_NULL, false},
	{NULL, 0, false}
};

/* Plans are for one form of protected tables. */
static void
stored_form_assign(bool newval, void *extra)
{
	if (newval != envelope_stored_form)
		ResetPlanCache();
}

/* Settings that size shared memory; see the file's header. */
static void
define_postmaster_settings(void)
{
	DefineCustomIntVariable("envelope.cache_size",
							"Sets how many unwrapped data keys shared memory holds.",
							"A tenant whose columns are searched uses two.",
							&envelope_cache_size,
							500, 1, 1000000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("envelope.kms_connections",
							"Sets how many KMS calls run at once.",
							"Four times as many requests can be queued or running; a caller beyond that waits for one to end.",
							&envelope_kms_connections,
							64, 1, 1024,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

/*
 * Define all settings.  Called once, from _PG_init.
 */
void
settings_define(void)
{
	if (process_shared_preload_libraries_in_progress)
		define_postmaster_settings();

	DefineCustomIntVariable("envelope.cache_ttl",
							"Sets how long an unwrapped data key may be used before the KMS must have answered for it again.",
							"Keys in use are refreshed at 80 percent of this time.",
							&envelope_cache_ttl,
							300, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("envelope.outage_grace",
							"Sets how much longer a key in use lives while the KMS is unreachable.",
							"Zero makes keys die at the end of their time whatever the reason.",
							&envelope_outage_grace,
							600, 0, 86400,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("envelope.kms_timeout",
							"Sets how long a statement waits for a key that is not in memory.",
							NULL,
							&envelope_kms_timeout,
							5000, 100, 60000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomStringVariable("envelope.local_kek_directory",
							   "Sets the directory of the key files of local KEKs.",
							   "It must be owned by the server's user, closed to everybody else, and outside the data directory.",
							   &envelope_local_kek_directory,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("envelope.local_kek_faults",
							   "Makes local KEKs misbehave, for tests.",
							   "A list such as platform:delay=200;eu:denied of KEK and fault: delay=MILLISECONDS, unreachable, denied, corrupt or stalled.",
							   &envelope_local_kek_faults,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY | GUC_NOT_IN_SAMPLE,
							   kek_faults_check, NULL, NULL);

	DefineCustomStringVariable("envelope.credentials_file",
							   "Sets the file of the credential profiles that KEKs name.",
							   "It must belong to the server's user with mode 0600, or to root with mode 0640.",
							   &envelope_credentials_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("envelope.ca_file",
							   "Sets the file of the certificates by which the TLS of a KMS is verified.",
							   "Empty means what the system trusts.",
							   &envelope_ca_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomBoolVariable("envelope.log_kms_calls",
							 "Logs each call of a KMS.",
							 "One line in JSON, with who caused it, how it ended and the KMS's own request id.",
							 &envelope_log_kms_calls,
							 false,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("envelope.tenant",
							   "Binds the session to one tenant.",
							   "Sealing, opening and terms of any other tenant are then refused.",
							   &envelope_tenant,
							   "",
							   PGC_USERSET, 0,
							   NULL, NULL, NULL);

	DefineCustomEnumVariable("envelope.unreadable",
							 "Sets what opening a value does whose key is denied, destroyed or suspended.",
							 "With null such a value opens as NULL, with one warning per tenant and transaction.",
							 &envelope_unreadable,
							 UNREADABLE_ERROR, unreadable_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("envelope.allow_drop_extension",
							 "Allows DROP EXTENSION envelope while keys are alive.",
							 "Everything sealed under them is lost unless a dump of the key tables exists.",
							 &envelope_allow_drop_extension,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("envelope.stored_form",
							 "Shows protected tables as they are stored.",
							 "Protected columns are then null, and the columns that hold them sealed are shown.",
							 &envelope_stored_form,
							 false,
							 PGC_SUSET, 0,
							 NULL, stored_form_assign, NULL);
	DefineCustomIntVariable("envelope.retired_key_retention",
							"Sets how long after the proof of its rotation maintenance destroys a retired data key.",
							"-1 never does.",
							&envelope_retired_key_retention,
							-1, -1, INT_MAX / 60,
							PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);

	DefineCustomIntVariable("envelope.destroy_approvals",
							"Sets how many people beside the requester must approve that a tenant is destroyed.",
							"They are told apart by the roles they log in as.",
							&envelope_destroy_approvals,
							1, 0, 100,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("envelope.maintenance_max_lag",
							"Sets how far standbys may fall behind before rotations wait for them.",
							"Measured in WAL that is not replayed yet; -1 does not wait.",
							&envelope_maintenance_max_lag,
							-1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("envelope.allow_plaintext_copies",
							 "Allows tables and materialized views that are made from protected columns.",
							 "They hold the values in plaintext.",
							 &envelope_allow_plaintext_copies,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	MarkGUCPrefixReserved("envelope");
}
