/*-------------------------------------------------------------------------
 *
 * protect.h
 *	  envelope_protect: a table's columns become protected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROTECT_H
#define ENVELOPE_PROTECT_H

/* What the name of the constraint ends in that keeps a carrier NULL */
#define PLAIN_CHECK_SUFFIX	"__plain"

extern char *protect_column_name(const char *carrier, const char *suffix);
extern void protect_execute(char *statement);
extern char *protect_query(char *query);

#endif							/* ENVELOPE_PROTECT_H */
