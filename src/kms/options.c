/*-------------------------------------------------------------------------
 *
 * options.c
 *	  The options of a KEK, as the worker reads them, and names that an option
 *	  must not have.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/json.h"
#include "kms/options.h"

/*
 * Read options into their places.  False where the JSON is malformed, or a
 * value is too long or could not stand in a header.
 */
bool
options_read(const char *json, const KekOption *options, int noptions)
{
	Json	   *doc = jdoc_read(json, strlen(json));
	bool		ok = jdoc_is_object(doc);

	for (int i = 0; i < noptions && ok; i++)
	{
		const char *value = jdoc_text(doc, options[i].name);

		options[i].value[0] = '\0';
		if (value == NULL)
			continue;
		for (const char *at = value; *at; at++)
			ok = ok && (unsigned char) *at > ' ' && *at != 0x7f;
		ok = ok && strlen(value) < options[i].size;
		if (ok)
			strlcpy(options[i].value, value, options[i].size);
	}
	jdoc_free(doc);
	return ok;
}

/*
 * Is this the name of something secret, however it is written?  What it would
 * hold belongs in envelope.credentials_file.
 */
bool
option_is_secret(const char *name)
{
	static const char *const words[] = {
		"secret", "token", "password", "passwd", "passphrase", "credential",
		"accesskey", "privatekey", "apikey", "sharedkey", "clientkey", "jwt",
		"roleid", "bearer", "authorization", "signature"
	};
	char		plain[64];
	size_t		len = 0;

	for (const char *at = name; *at && len < sizeof(plain) - 1; at++)
	{
		if (*at != '_' && *at != '-' && *at != '.' && *at != ' ')
			plain[len++] = pg_tolower((unsigned char) *at);
	}
	plain[len] = '\0';
	for (int i = 0; i < lengthof(words); i++)
	{
		if (strstr(plain, words[i]) != NULL)
			return true;
	}
	return false;
}
