/*-------------------------------------------------------------------------
 *
 * aws_files.c
 *	  The formats in which AWS hands out credentials.
 *
 * Profile files are INI files, STS answers in XML, everything else is JSON.
 * Of the XML a few elements without attributes or children are wanted, whose
 * contents have no character that would be escaped, so that they are looked
 * for by name.  Times are ISO 8601 or seconds of the epoch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <time.h>

#include "kms/aws.h"

/* Nothing lives longer. */
#define LIFETIME_MAX_S	(10 * 365 * 86400LL)

/* Where a line, and then its text without surrounding space, begins and ends */
static const char *
trim(const char *line, size_t *len)
{
	*len = strcspn(line, "\r\n");
	while (*len > 0 && isspace((unsigned char) *line))
	{
		line++;
		(*len)--;
	}
	while (*len > 0 && isspace((unsigned char) line[*len - 1]))
		(*len)--;
	return line;
}

static bool
is_text(const char *text, size_t len, const char *other)
{
	return strlen(other) == len && strncmp(text, other, len) == 0;
}

/*
 * Take the value of a key from a section of an INI file.  False where it is not
 * there; what is nested below a key, which begins with space, is passed over.
 */
bool
ini_get(const char *text, const char *section, const char *key, SecretBuffer *value)
{
	bool		inside = false;
	const char *line = text;

	buffer_reset(value);
	while (*line)
	{
		size_t		len;
		const char *at = trim(line, &len);
		const char *equals = memchr(at, '=', len);

		if (len > 1 && at[0] == '[' && at[len - 1] == ']')
		{
			const char *name = at + 1;
			size_t		name_len = len - 2;

			while (name_len > 0 && isspace((unsigned char) *name))
			{
				name++;
				name_len--;
			}
			while (name_len > 0 && isspace((unsigned char) name[name_len - 1]))
				name_len--;
			inside = is_text(name, name_len, section);
		}
		else if (inside && equals && at == line && at[0] != '#' && at[0] != ';')
		{
			size_t		key_len = equals - at;

			while (key_len > 0 && isspace((unsigned char) at[key_len - 1]))
				key_len--;
			if (is_text(at, key_len, key))
			{
				const char *end = at + len;

				equals++;
				while (equals < end && isspace((unsigned char) *equals))
					equals++;
				buffer_append(value, equals, end - equals);
				return !value->failed;
			}
		}
		line += strcspn(line, "\n");
		if (*line)
			line++;
	}
	return false;
}

/* Take the contents of the first element of this name. */
bool
xml_get(const char *text, const char *tag, SecretBuffer *value)
{
	char		open[64];
	const char *start;
	size_t		len;

	buffer_reset(value);
	snprintf(open, sizeof(open), "<%s>", tag);
	start = strstr(text, open);
	if (start == NULL)
		return false;
	start += strlen(open);
	len = strcspn(start, "<&");
	if (start[len] != '<' || start[len + 1] != '/')
		return false;
	buffer_append(value, start, len);
	return len > 0 && !value->failed;
}

/* Parse a time such as 2026-01-31T12:00:00Z, or seconds of the epoch. */
bool
iso_time_parse(const char *text, int64 *epoch)
{
	struct tm	tm = {0};
	char	   *end;
	int			hours = 0;
	int			minutes = 0;
	int64		shift = 0;

	if (strspn(text, "0123456789.") == strlen(text) && text[0] != '\0')
	{
		*epoch = strtoll(text, NULL, 10);
		return *epoch > 0;
	}
	end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (end == NULL)
		return false;
	if (*end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	if ((*end == '+' || *end == '-') && sscanf(end + 1, "%2d:%2d", &hours, &minutes) >= 1)
		shift = (*end == '+' ? -1 : 1) * (hours * 3600 + minutes * 60);
	else if (strcmp(end, "Z") != 0)
		return false;
	*epoch = (int64) timegm(&tm) + shift;
	return *epoch > 0;
}

/*
 * How long from now it is to an expiration, in ms; 0 where there is none, and a
 * short while where it is malformed.  What counts is the clock of the server that said so, if it said what time it
 * has: ours may be off.
 */
int64
lifetime_of(const char *expiration, int64 server_date)
{
	int64		expires;
	int64		now = server_date > 0 ? server_date : (int64) time(NULL);

	if (expiration == NULL || expiration[0] == '\0')
		return 0;
	if (!iso_time_parse(expiration, &expires))
		return 300 * 1000;
	return Min(Max(expires - now, 1), LIFETIME_MAX_S) * 1000;
}
