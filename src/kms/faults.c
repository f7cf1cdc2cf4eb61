/*-------------------------------------------------------------------------
 *
 * faults.c
 *	  Make local KEKs misbehave.
 *
 * Herds, outages and withdrawal are what a key cache is for, and a local KEK
 * has none of them by itself.  envelope.local_kek_faults gives it some, so
 * that they can be tried out, here and by whoever plans for them:
 *
 *		platform:delay=200;eu:denied
 *
 * Entries for the same KEK add up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>

#include "kms/faults.h"
#include "settings.h"

#define MAX_DELAY_MS 600000

/* Parse one fault, a word of len bytes; false where it is none. */
static bool
parse_fault(const char *word, size_t len, KekFault *fault)
{
	static const char delay[] = "delay=";
	char	   *end;
	long		ms;

	if (len == strlen("stalled") && strncmp(word, "stalled", len) == 0)
		fault->stalled = true;
	else if (len == strlen("unreachable") && strncmp(word, "unreachable", len) == 0)
		fault->unreachable = true;
	else if (len == strlen("denied") && strncmp(word, "denied", len) == 0)
		fault->denied = true;
	else if (len == strlen("corrupt") && strncmp(word, "corrupt", len) == 0)
		fault->corrupt = true;
	else if (len > strlen(delay) && strncmp(word, delay, strlen(delay)) == 0 &&
			 isdigit((unsigned char) word[strlen(delay)]))
	{
		ms = strtol(word + strlen(delay), &end, 10);
		if (end != word + len || ms > MAX_DELAY_MS)
			return false;
		fault->delay_ms = (int) ms;
	}
	else
		return false;
	return true;
}

/*
 * Parse a list of faults.  With kek NULL only check it; else gather the faults
 * of that KEK.  False where the list is malformed.
 */
static bool
parse_faults(const char *list, const char *kek, KekFault *fault)
{
	const char *at = list;

	while (*at)
	{
		size_t		len = strcspn(at, ";");
		const char *colon = memchr(at, ':', len);
		KekFault	unused = {0};
		bool		ours;

		if (colon == NULL || colon == at)
			return false;
		ours = kek && strlen(kek) == colon - at && strncmp(kek, at, colon - at) == 0;
		if (!parse_fault(colon + 1, len - (colon + 1 - at), ours ? fault : &unused))
			return false;

		at += len;
		if (*at == ';')
			at++;
	}
	return true;
}

/* check_hook of envelope.local_kek_faults */
bool
kek_faults_check(char **newval, void **extra, GucSource source)
{
	KekFault	fault = {0};

	if (*newval == NULL || parse_faults(*newval, NULL, &fault))
		return true;
	GUC_check_errdetail("Each entry is a KEK, a colon, and one of delay=MILLISECONDS, unreachable, denied, corrupt, stalled; entries are separated by semicolons.");
	return false;
}

/*
 * The faults that are ordered for a KEK, in a process that has read the
 * current configuration.
 */
KekFault
kek_fault_of(const char *kek)
{
	KekFault	fault = {0};

	if (envelope_local_kek_faults)
		(void) parse_faults(envelope_local_kek_faults, kek, &fault);
	return fault;
}
