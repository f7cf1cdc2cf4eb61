/*-------------------------------------------------------------------------
 *
 * encoding.c
 *	  Text between the server's encoding and UTF-8.
 *
 * What is sealed, hashed and bound into values is UTF-8 whatever the encoding
 * of the database, so that a dump can be restored into a database of another
 * encoding.  PostgreSQL's own conversions show the offending bytes in their
 * error messages; here these would be plaintext, so that the errors are ours.
 *
 * A database of encoding SQL_ASCII has to hold UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "keys/encoding.h"

static void
check_utf8(const char *text, size_t len)
{
	if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("text is not valid UTF-8"),
				 errhint("Values that are not text are sealed as bytea.")));
}

/*
 * Convert *len bytes of text; the result is palloc'd, ends with a zero, and
 * *len is its length.
 */
static const char *
convert(const char *text, size_t *len, int from, int to)
{
	Oid			proc = FindDefaultConversionProc(from, to);
	size_t		size = *len * MAX_CONVERSION_GROWTH + 1;
	size_t		done = 0;
	char	   *result;
	char	   *end;

	if (!OidIsValid(proc))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("default conversion function for encoding \"%s\" to \"%s\" does not exist",
						pg_encoding_to_char(from), pg_encoding_to_char(to))));

	/* What grows beyond INT_MAX bytes is converted in parts. */
	result = end = MemoryContextAllocHuge(CurrentMemoryContext, size);
	while (done < *len)
	{
		int			converted;

		converted = pg_do_encoding_conversion_buf(proc, from, to,
												  (unsigned char *) unconstify(char *, text) + done,
												  (int) (*len - done),
												  (unsigned char *) end,
												  (int) Min(size - (end - result), (size_t) INT_MAX),
												  true);
		if (converted <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
					 errmsg("a character of the value has no equivalent in encoding \"%s\"",
							pg_encoding_to_char(to))));
		done += converted;
		end += strlen(end);
	}
	*len = end - result;
	return result;
}

/*
 * The UTF-8 of *len bytes of text in the server's encoding.  The result is
 * text itself, or palloc'd and zero-terminated; *len is set to its length.
 * 22021 where a database of encoding SQL_ASCII holds something else.
 */
const char *
utf8_from_server(const char *text, size_t *len)
{
	int			encoding = GetDatabaseEncoding();

	if (encoding == PG_UTF8 || *len == 0)
		return text;

	if (encoding == PG_SQL_ASCII)
	{
		check_utf8(text, *len);
		return text;
	}
	return convert(text, len, encoding, PG_UTF8);
}

/*
 * The reverse.  22P05 where the server's encoding lacks a character; the
 * message does not say which.
 */
const char *
utf8_to_server(const char *text, size_t *len)
{
	int			encoding = GetDatabaseEncoding();

	if (*len == 0)
		return text;

	check_utf8(text, *len);
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return text;

	return convert(text, len, PG_UTF8, encoding);
}
