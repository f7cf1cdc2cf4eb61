/*-------------------------------------------------------------------------
 *
 * credential.c
 *	  The worker's credentials: had when first needed, and renewed ahead.
 *
 * There is an entry for each credential that a KEK has needed lately,
 * CREDENTIALS_MAX at most: one more takes the place of the one used least
 * lately, but of none that a call uses.  A credential is
 * had by a fetch, a few requests one after the other (kms/aws_credentials.c and
 * its likes say which), beside everything else that the worker does.  It is
 * renewed before it expires, while calls go on with the one there is; so a call
 * waits only for the first.  Where a renewal fails it is tried again, less and
 * less often, and the old one is used for as long as it lives.
 *
 * A credential made from files is made anew when one of these has changed,
 * which is looked at once a second while it is used: what counts is which file
 * the path leads to, so that a link that is pointed elsewhere counts as well.
 * The same after SIGHUP.
 *
 * When a KMS does not take a credential, the entry has none until it has been
 * had anew, or was confirmed by whoever issued it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"

#include "compat.h"
#include "crypto/secret.h"
#include "kms/credential.h"
#include "kms/provider.h"

#define CREDENTIALS_MAX		1024
/* So many are renewed at once; those that a call waits for come on top. */
#define RENEWALS_MAX		16

#define FETCH_CONNECT_MS	3000
#define FETCH_ATTEMPT_MS	5000
/* A metadata service answers at once, or there is none. */
#define METADATA_MS			1000

#define RETRY_MS			1000
#define RETRY_MAX_MS		60000
/* Nobody has used it for so long: it is not renewed, but forgotten. */
#define IDLE_MS				(24 * 3600 * 1000L)
/* Files are looked at so often. */
#define LOOK_MS				1000
/* Had or confirmed so lately, a credential is fresh. */
#define FRESH_MS			10000

struct CredentialEntry
{
	CredentialEntry *next;
	uint64		hash;			/* of the key */
	CredentialKey key;
	int			users;			/* calls that use it */

	bool		usable;			/* current may be shown to the KMS */
	Credential	current;
	uint64		version;		/* counts what was had */
	int64		expires_at;		/* boottime_ms(); PG_INT64_MAX: never */
	int64		renew_at;
	int64		confirmed_at;	/* or had */
	int			refusals;		/* by the KMS, in a row */
	int64		used_at;

	bool		fetching;
	CredentialFetch fetch;
	HttpExchange exchange;
	int			failures;		/* in a row */
	int64		retry_at;
	KmsOutcome	outcome;		/* of the last that failed */
	char		detail[KMS_DETAIL_MAX];

	uint64		profiles;		/* the generation of these it was made from */
	WatchedFiles files;
	int64		look_at;
};

static CredentialEntry *entries = NULL;
static int	nentries = 0;
static int	nfetching = 0;

/* Without a fetch under way there is nothing to do before, boottime_ms(). */
static int64 next_due = 0;

static void
end_fetch(CredentialEntry *entry)
{
	CredentialFetch *fetch = &entry->fetch;

	http_reset(&entry->exchange);
	credential_reset(&fetch->made);
	for (int i = 0; i < lengthof(fetch->scratch); i++)
		buffer_reset(&fetch->scratch[i]);
	memset(fetch, 0, sizeof(*fetch));
	if (entry->fetching)
		nfetching--;
	entry->fetching = false;
	next_due = 0;
}

static void
forget_entry(CredentialEntry *entry)
{
	end_fetch(entry);
	credential_reset(&entry->current);
	free(entry);
	nentries--;
}

/* A number of ms, up to a tenth less at random */
static int64
jittered(int64 ms)
{
	return ms - (int64) (ms / 10.0 * pg_prng_double(&pg_global_prng_state));
}

/* The fetch has ended well. */
static void
take_credential(CredentialEntry *entry)
{
	int64		now = boottime_ms();
	int64		lifetime;
	int64		ahead;

	credential_reset(&entry->current);
	entry->current = entry->fetch.made;
	memset(&entry->fetch.made, 0, sizeof(entry->fetch.made));
	end_fetch(entry);

	lifetime = entry->current.lifetime_ms;
	ahead = Min(lifetime / 3, entry->key.kind->refresh_ahead_ms);
	entry->usable = true;
	entry->version++;
	entry->confirmed_at = now;
	entry->failures = 0;
	entry->expires_at = lifetime > 0 ? now + lifetime : PG_INT64_MAX;
	entry->renew_at = lifetime > 0 ? now + jittered(lifetime - ahead) : PG_INT64_MAX;
	entry->look_at = now + LOOK_MS;
}

/* The fetch has failed. */
static void
take_failure(CredentialEntry *entry)
{
	int64		wait = (int64) RETRY_MS << Min(entry->failures, 10);

	entry->outcome = entry->fetch.outcome;
	strlcpy(entry->detail, entry->fetch.detail, sizeof(entry->detail));
	end_fetch(entry);
	entry->failures++;
	entry->retry_at = boottime_ms() + jittered(Min(wait, RETRY_MAX_MS));
	entry->look_at = boottime_ms() + LOOK_MS;
	if (entry->failures == 1)
		ereport(LOG,
				(errmsg("envelope: could not get %s credentials", entry->key.kind->name),
				 errdetail_internal("%s", entry->detail)));
	/* Somebody has taken it away: it must not be used any longer. */
	if (entry->outcome == KMS_MISCONFIGURED && entry->expires_at == PG_INT64_MAX)
		entry->usable = false;
}

/* Take the next step of a fetch. */
static void
advance_fetch(CredentialEntry *entry)
{
	CredentialFetch *fetch = &entry->fetch;
	bool		metadata;

	http_request_reset(&entry->exchange.request);
	switch (entry->key.kind->next(fetch, &entry->exchange.request))
	{
		case FETCH_DONE:
			take_credential(entry);
			break;
		case FETCH_FAILED:
			take_failure(entry);
			break;
		case FETCH_ASK:
			metadata = entry->exchange.request.metadata;
			http_run(&entry->exchange,
					 metadata ? METADATA_MS : FETCH_CONNECT_MS,
					 metadata ? METADATA_MS : FETCH_ATTEMPT_MS);
			break;
	}
}

static void
begin_fetch(CredentialEntry *entry, bool doubted)
{
	CredentialFetch *fetch = &entry->fetch;

	memset(fetch, 0, sizeof(*fetch));
	fetch->key = &entry->key;
	fetch->current = entry->version > 0 ? &entry->current : NULL;
	fetch->doubted = doubted;
	entry->fetching = true;
	nfetching++;
	entry->files.nfiles = 0;
	fetch->files = &entry->files;
	entry->profiles = profiles_generation();
	advance_fetch(entry);
}

/* The reply to a step of a fetch is there. */
static void
take_fetch_reply(CredentialEntry *entry)
{
	CredentialFetch *fetch = &entry->fetch;

	fetch->metadata = entry->exchange.request.metadata;
	entry->key.kind->take(fetch, &entry->exchange.reply);
	http_reset(&entry->exchange);
	if (fetch->outcome != KMS_OK)
		take_failure(entry);
	else
		advance_fetch(entry);
}

/* Forget the entry used least lately; false where calls use all of them. */
static bool
make_room(void)
{
	CredentialEntry **oldest = NULL;
	CredentialEntry *entry;

	for (CredentialEntry **link = &entries; *link; link = &(*link)->next)
	{
		if ((*link)->users == 0 &&
			(oldest == NULL || (*link)->used_at < (*oldest)->used_at))
			oldest = link;
	}
	if (oldest == NULL)
		return false;
	entry = *oldest;
	*oldest = entry->next;
	forget_entry(entry);
	return true;
}

/* Two keys that are the same have the same hash. */
static uint64
hash_key(const CredentialKey *key)
{
	const char *const parts[] = {
		key->profile, key->address, key->name_space, key->role, key->external_id
	};
	uint64		hash = 0;

	for (int i = 0; i < lengthof(parts); i++)
		hash = hash_bytes_extended((const unsigned char *) parts[i], strlen(parts[i]), hash);
	return hash;
}

/*
 * Find the entry of a credential, or make one.  NULL where there is no room or
 * no memory for it.  It is good until the next call, unless it is held.
 */
CredentialEntry *
credential_find(const CredentialKey *key)
{
	CredentialEntry *entry;
	uint64		hash = hash_key(key);

	for (entry = entries; entry; entry = entry->next)
	{
		if (entry->hash == hash && memcmp(&entry->key, key, CREDENTIAL_KEY_BYTES) == 0)
		{
			entry->used_at = boottime_ms();
			return entry;
		}
	}
	if (nentries >= CREDENTIALS_MAX && !make_room())
		return NULL;
	entry = calloc(1, sizeof(*entry));
	if (entry == NULL)
		return NULL;
	entry->hash = hash;
	entry->key = *key;
	entry->used_at = boottime_ms();
	entry->expires_at = entry->renew_at = PG_INT64_MAX;
	entry->next = entries;
	entries = entry;
	nentries++;
	return entry;
}

/* A call uses it: it is there until it is released. */
void
credential_hold(CredentialEntry *entry)
{
	entry->users++;
}

void
credential_release(CredentialEntry *entry)
{
	Assert(entry->users > 0);
	entry->users--;
}

/* What tells it from others, and is the same if it is forgotten and had again */
uint64
credential_hash(const CredentialEntry *entry)
{
	return entry->hash;
}

/*
 * Is there a credential to show?  Where there is none, it is being fetched, or
 * could not be had a short while ago.
 */
CredentialState
credential_state(CredentialEntry *entry)
{
	int64		now = boottime_ms();

	if (entry->usable && now >= entry->expires_at)
		entry->usable = false;
	if (entry->usable)
		return CREDENTIAL_READY;
	if (!entry->fetching && (entry->failures == 0 || now >= entry->retry_at))
		begin_fetch(entry, false);
	if (entry->usable)
		return CREDENTIAL_READY;
	return entry->fetching ? CREDENTIAL_PENDING : CREDENTIAL_FAILED;
}

const Credential *
credential_get(const CredentialEntry *entry)
{
	return &entry->current;
}

/* Why there is none; detail has KMS_DETAIL_MAX bytes. */
KmsOutcome
credential_problem(const CredentialEntry *entry, char *detail)
{
	strlcpy(detail, entry->detail, KMS_DETAIL_MAX);
	return entry->outcome;
}

/* Counts what was had, so that a refusal can say of which it speaks */
uint64
credential_version(const CredentialEntry *entry)
{
	return entry->version;
}

/*
 * Was it had or confirmed since, boottime_ms()?  Then it was alive when a call
 * was answered that had begun before.
 */
bool
credential_is_confirmed(const CredentialEntry *entry, int64 since)
{
	return entry->usable && entry->confirmed_at >= since;
}

/*
 * A KMS did not take it (or may not have: doubted).  It is not used until it
 * has been had anew or was confirmed.  False where that makes no sense now,
 * since one after the other is not taken: then it is not had again for each
 * call, but less and less often.
 */
bool
credential_refuse(CredentialEntry *entry, uint64 version, bool doubted)
{
	if (version != entry->version || !entry->usable)
		return true;
	if (!doubted)
	{
		int64		wait = (int64) RETRY_MS << Min(entry->refusals, 10);

		if (entry->refusals > 0 &&
			boottime_ms() < entry->confirmed_at + Min(wait, RETRY_MAX_MS))
			return false;
		entry->refusals++;
	}
	entry->usable = false;
	if (entry->fetching)
		end_fetch(entry);
	begin_fetch(entry, doubted);
	return true;
}

/* A KMS took it. */
void
credential_accept(CredentialEntry *entry)
{
	entry->refusals = 0;
}

/* Have it anew, while the present one is used; but not again and again. */
void
credential_renew(CredentialEntry *entry)
{
	if (entry->usable && !entry->fetching && entry->expires_at != PG_INT64_MAX &&
		!credential_is_confirmed(entry, boottime_ms() - FRESH_MS))
		begin_fetch(entry, false);
}

/* -1 where there is none, or it does not expire */
int64
credential_expires_in_ms(const CredentialEntry *entry)
{
	if (!entry->usable || entry->expires_at == PG_INT64_MAX)
		return -1;
	return Max(0, entry->expires_at - boottime_ms());
}

/* When an entry that is not being fetched is to be looked at next */
static int64
due_of(const CredentialEntry *entry)
{
	int64		due = Max(entry->renew_at, entry->retry_at);

	if ((entry->usable || entry->failures > 0) &&
		(entry->files.nfiles > 0 || entry->key.profile[0] != '\0'))
		due = Min(due, entry->look_at);
	return due;
}

/* Move on all that is under way, and begin what is due. */
void
credentials_drive(void)
{
	int64		now = boottime_ms();

	if (nfetching == 0 && now < next_due)
		return;
	for (CredentialEntry **link = &entries; *link;)
	{
		CredentialEntry *entry = *link;

		if (entry->fetching)
		{
			while (entry->fetching && entry->exchange.done)
				take_fetch_reply(entry);
		}
		else if (entry->users == 0 && now >= entry->used_at + IDLE_MS)
		{
			*link = entry->next;
			forget_entry(entry);
			continue;
		}
		else if (nfetching >= RENEWALS_MAX)
			;					/* when one of them has ended */
		else if (now >= entry->renew_at && now >= entry->retry_at)
			begin_fetch(entry, false);
		else if ((entry->usable || entry->failures > 0) && now >= entry->look_at)
		{
			entry->look_at = now + LOOK_MS;
			if ((entry->key.profile[0] != '\0' &&
				 entry->profiles != profiles_generation()) || watched_files_changed(&entry->files))
				begin_fetch(entry, false);
		}
		link = &entry->next;
	}

	next_due = PG_INT64_MAX;
	for (const CredentialEntry *entry = entries; entry; entry = entry->next)
	{
		if (!entry->fetching)
			next_due = Min(next_due, due_of(entry));
	}
}

/*
 * When credentials_drive has something to do at the latest, boottime_ms(); but
 * when a reply comes, which wakes the worker by itself.
 */
int64
credentials_next_due(void)
{
	for (const CredentialEntry *entry = entries; nfetching > 0 && entry; entry = entry->next)
	{
		if (entry->fetching && entry->exchange.done)
			return 0;
	}
	return nfetching >= RENEWALS_MAX ? PG_INT64_MAX : next_due;
}

/* Read everything anew, the present credentials being used meanwhile. */
void
credentials_reload(void)
{
	profiles_forget();
	for (CredentialEntry *entry = entries; entry; entry = entry->next)
	{
		entry->failures = 0;
		entry->retry_at = 0;
		if (entry->fetching)
			end_fetch(entry);
		if (entry->version > 0)
			entry->renew_at = boottime_ms();
	}
	next_due = 0;
}
