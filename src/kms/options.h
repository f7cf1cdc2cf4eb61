/*-------------------------------------------------------------------------
 *
 * options.h
 *	  The options of a KEK, as the worker reads them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_OPTIONS_H
#define ENVELOPE_OPTIONS_H

typedef struct KekOption
{
	const char *name;
	char	   *value;			/* "" where it is not given */
	size_t		size;
} KekOption;

extern bool options_read(const char *json, const KekOption *options, int noptions);
extern bool option_is_secret(const char *name);

#endif							/* ENVELOPE_OPTIONS_H */
