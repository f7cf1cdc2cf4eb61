/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Reading and writing JSON outside of the database, by jansson.
 *
 * This file includes no header of PostgreSQL, see json.h.  It never calls
 * jansson's json_object(), a name under which the server has a function of its
 * own; json_pack makes objects as well.
 *
 * Texts hold no zero bytes, and no name stands twice in an object: jansson
 * refuses both.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "kms/json.h"

static void
wipe_and_free(void *memory)
{
	if (memory == NULL)
		return;
	explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

/*
 * From now on jansson wipes the memory that it gives back.  The allocator
 * stays malloc, so that nobody else who uses jansson in this process notices.
 */
void
jdoc_wipe_what_is_freed(void)
{
	json_set_alloc_funcs(malloc, wipe_and_free);
}

/* Parse an object or an array; NULL where it is malformed. */
Json *
jdoc_read(const char *text, size_t len)
{
	if (text == NULL)
		return NULL;
	return json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

void
jdoc_free(Json *doc)
{
	json_decref(doc);
}

/* A member of an object, or NULL */
const Json *
jdoc_get(const Json *object, const char *name)
{
	return json_object_get(object, name);
}

/* A string, or NULL */
const char *
jdoc_string(const Json *value)
{
	return json_string_value(value);
}

/* A member that is a string, or NULL */
const char *
jdoc_text(const Json *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* A member that is a whole number, or a string of one as int64s are sent */
bool
jdoc_int(const Json *object, const char *name, int64_t *value)
{
	const		json_t *member = json_object_get(object, name);
	const char *text = json_string_value(member);
	char	   *end;
	long long	number;

	if (json_is_integer(member))
	{
		*value = json_integer_value(member);
		return true;
	}
	if (json_is_real(member) && json_real_value(member) > -1e15 &&
		json_real_value(member) < 1e15)
	{
		*value = (int64_t) json_real_value(member);
		return true;
	}
	if (text == NULL || *text == '\0')
		return false;
	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*value = number;
	return true;
}

bool
jdoc_is_true(const Json *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}

bool
jdoc_is_object(const Json *value)
{
	return json_is_object(value);
}

size_t
jdoc_length(const Json *array)
{
	return json_array_size(array);
}

const Json *
jdoc_item(const Json *array, size_t i)
{
	return json_array_get(array, i);
}

/* Call member for each of an object. */
void
jdoc_each(const Json *object, jdoc_member_fn member, void *arg)
{
	const char *name;
	json_t	   *value;

	json_object_foreach((json_t *) object, name, value)
		member(name, value, arg);
}

Json *
jdoc_new(void)
{
	return json_pack("{}");
}

Json *
jdoc_new_array(void)
{
	return json_pack("[]");
}

bool
jdoc_put_text(Json *object, const char *name, const char *text)
{
	return json_object_set_new(object, name, json_string(text)) == 0;
}

bool
jdoc_put_int(Json *object, const char *name, int64_t value)
{
	return json_object_set_new(object, name, json_integer(value)) == 0;
}

bool
jdoc_put_true(Json *object, const char *name)
{
	return json_object_set_new(object, name, json_true()) == 0;
}

/* Put a value, which is freed where that fails. */
bool
jdoc_put(Json *object, const char *name, Json *value)
{
	return json_object_set_new(object, name, value) == 0;
}

bool
jdoc_append(Json *array, Json *value)
{
	return json_array_append_new(array, value) == 0;
}

bool
jdoc_append_text(Json *array, const char *text)
{
	return json_array_append_new(array, json_string(text)) == 0;
}

/* As text, to be given to jdoc_free_text; NULL where memory ran out. */
char *
jdoc_write(const Json *doc)
{
	return json_dumps(doc, JSON_COMPACT);
}

void
jdoc_free_text(char *text)
{
	wipe_and_free(text);
}
