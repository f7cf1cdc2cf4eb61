/*-------------------------------------------------------------------------
 *
 * aws.h
 *	  What the files about AWS share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_AWS_H
#define ENVELOPE_AWS_H

#include "kms/credential.h"

extern const char *aws_domain(const char *partition_or_region);

/* kms/aws_files.c: what is read where, without I/O */
extern bool ini_get(const char *text, const char *section, const char *key,
					SecretBuffer *value);
extern bool xml_get(const char *text, const char *tag, SecretBuffer *value);
extern bool iso_time_parse(const char *text, int64 *epoch);
extern int64 lifetime_of(const char *expiration, int64 server_date);

#endif							/* ENVELOPE_AWS_H */
