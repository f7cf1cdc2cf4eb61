/*-------------------------------------------------------------------------
 *
 * credential.h
 *	  What the worker shows a KMS to be let in, and where it gets that from.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_CREDENTIAL_H
#define ENVELOPE_CREDENTIAL_H

#include <stddef.h>
#include <sys/stat.h>

#include "kms/http.h"
#include "kms/json.h"
#include "kms/kms.h"

#define PROFILE_NAME_MAX	64
#define ROLE_MAX			256
#define EXTERNAL_ID_MAX		1225	/* AWS's own limit, and a zero */
#define ADDRESS_MAX			256

typedef struct CredentialKind CredentialKind;

/* What tells one credential from another; zero where it does not apply */
typedef struct CredentialKey
{
	const CredentialKind *kind;
	char		profile[PROFILE_NAME_MAX];	/* of envelope.credentials_file */
	char		address[ADDRESS_MAX];	/* Vault: host:port; AWS: region */
	char		name_space[ROLE_MAX];	/* Vault */
	char		role[ROLE_MAX]; /* AWS: to be assumed */
	char		external_id[EXTERNAL_ID_MAX];
} CredentialKey;

/* Its bytes without what follows the last member; there is nothing between them */
#define CREDENTIAL_KEY_BYTES \
	(offsetof(CredentialKey, external_id) + EXTERNAL_ID_MAX)

typedef struct Credential
{
	SecretBuffer access_key;	/* AWS */
	SecretBuffer secret_key;
	SecretBuffer token;			/* AWS: of the session; else what is shown */
	SecretBuffer client_cert;	/* files */
	SecretBuffer client_key;
	SecretBuffer ca_file;
	SecretBuffer endpoint;		/* instead of the vendor's own */
	SecretBuffer name_space;
	SecretBuffer hosts;			/* where it may go, a space after each; empty:
								 * to the vendor's own hosts and the endpoint */
	int64		lifetime_ms;	/* from when it was made; 0: for ever */
	bool		renewable;
	const char *finding;		/* what a check should tell of it; NULL */
} Credential;

typedef enum FetchStep
{
	FETCH_ASK,					/* the request is built */
	FETCH_DONE,					/* fetch->made is good */
	FETCH_FAILED				/* fetch->outcome and detail say why */
} FetchStep;

/* Files that a credential is made from, and what they were then */
#define FILES_MAX			6

typedef struct WatchedFile
{
	char		path[MAXPGPATH];
	struct stat was;			/* st_ino 0: not there */
} WatchedFile;

typedef struct WatchedFiles
{
	int			nfiles;
	WatchedFile files[FILES_MAX];
} WatchedFiles;

/* A credential being made */
typedef struct CredentialFetch
{
	const CredentialKey *key;
	const Credential *current;	/* what there is; NULL: nothing */
	bool		doubted;		/* the KMS may not take the current one */
	bool		metadata;		/* a service of this machine was asked */
	int			stage;			/* the kind's own; 0 at the beginning */
	int			source;			/* the kind's own */
	Credential	made;
	SecretBuffer scratch[3];	/* the kind's own */
	WatchedFiles *files;		/* that were read for it */
	KmsOutcome	outcome;
	char		detail[KMS_DETAIL_MAX];
} CredentialFetch;

/*
 * How credentials of one kind are had: next says what to do, reading files and
 * the environment for it; take parses the reply to what it asked.  take may
 * fail the fetch.  Neither throws.
 */
struct CredentialKind
{
	const char *name;
	int			refresh_ahead_ms;	/* before expiry, or the last third */
	FetchStep	(*next) (CredentialFetch *fetch, HttpRequest *request);
	void		(*take) (CredentialFetch *fetch, const HttpReply *reply);
};

extern const CredentialKind vault_credentials;
extern const CredentialKind aws_credentials;
extern const CredentialKind gcp_credentials;

typedef enum CredentialState
{
	CREDENTIAL_READY,
	CREDENTIAL_PENDING,			/* wait */
	CREDENTIAL_FAILED
} CredentialState;

typedef struct CredentialEntry CredentialEntry;

extern CredentialEntry *credential_find(const CredentialKey *key);
extern void credential_hold(CredentialEntry *entry);
extern void credential_release(CredentialEntry *entry);
extern uint64 credential_hash(const CredentialEntry *entry);
extern CredentialState credential_state(CredentialEntry *entry);
extern const Credential *credential_get(const CredentialEntry *entry);
extern KmsOutcome credential_problem(const CredentialEntry *entry, char *detail);
extern bool credential_refuse(CredentialEntry *entry, uint64 version, bool doubted);
extern void credential_accept(CredentialEntry *entry);
extern uint64 credential_version(const CredentialEntry *entry);
extern bool credential_is_confirmed(const CredentialEntry *entry, int64 since);
extern void credential_renew(CredentialEntry *entry);
extern int64 credential_expires_in_ms(const CredentialEntry *entry);
extern void credentials_drive(void);
extern int64 credentials_next_due(void);
extern void credentials_reload(void);

/* kms/fetch.c, for kinds and kms/credential.c */
extern bool credential_may_go_to(const Credential *credential, const char *url);
extern void credential_reset(Credential *credential);
extern bool watched_files_changed(const WatchedFiles *files);
extern void fetch_fail(CredentialFetch *fetch, KmsOutcome outcome,
					   const char *fmt,...) pg_attribute_printf(3, 4);
extern bool fetch_file(CredentialFetch *fetch, const char *path, const char *what,
					   SecretBuffer *contents);
extern bool fetch_profile(CredentialFetch *fetch, const Json **profile);
extern void fetch_take_common(CredentialFetch *fetch, const Json *profile);
extern void fetch_foreign_reply(CredentialFetch *fetch, const HttpReply *reply,
								const char *what);
extern const char *environment(const char *name);

/* kms/profiles.c */
extern const Json *profile_find(const char *name, char *problem, size_t size);
extern void profiles_forget(void);
extern uint64 profiles_generation(void);
extern Json *profiles_parse(const char *text, size_t len, const char **problem);

#endif							/* ENVELOPE_CREDENTIAL_H */
