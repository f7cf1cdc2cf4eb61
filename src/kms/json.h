/*-------------------------------------------------------------------------
 *
 * json.h
 *	  Reading and writing JSON outside of the database.
 *
 * jansson and PostgreSQL have names in common, so that no file can include the
 * headers of both: kms/json.c is the only one that knows jansson.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_JSON_H
#define ENVELOPE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A value; NULL is none, and is accepted wherever one is read */
typedef struct json_t Json;

extern void jdoc_wipe_what_is_freed(void);

/* Reading; what is returned belongs to the document */
extern Json *jdoc_read(const char *text, size_t len);
extern void jdoc_free(Json *doc);
extern const Json *jdoc_get(const Json *object, const char *name);
extern const char *jdoc_text(const Json *object, const char *name);
extern bool jdoc_int(const Json *object, const char *name, int64_t *value);
extern bool jdoc_is_true(const Json *object, const char *name);
extern bool jdoc_is_object(const Json *value);
extern size_t jdoc_length(const Json *array);
extern const Json *jdoc_item(const Json *array, size_t i);
extern const char *jdoc_string(const Json *value);

typedef void (*jdoc_member_fn) (const char *name, const Json *value, void *arg);
extern void jdoc_each(const Json *object, jdoc_member_fn member, void *arg);

/* Writing; what is put into another belongs to it */
extern Json *jdoc_new(void);
extern Json *jdoc_new_array(void);
extern bool jdoc_put_text(Json *object, const char *name, const char *text);
extern bool jdoc_put_int(Json *object, const char *name, int64_t value);
extern bool jdoc_put_true(Json *object, const char *name);
extern bool jdoc_put(Json *object, const char *name, Json *value);
extern bool jdoc_append(Json *array, Json *value);
extern bool jdoc_append_text(Json *array, const char *text);
extern char *jdoc_write(const Json *doc);
extern void jdoc_free_text(char *text);

#endif							/* ENVELOPE_JSON_H */
