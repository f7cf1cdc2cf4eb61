/*-------------------------------------------------------------------------
 *
 * value.h
 *	  Values of SQL types as the bytes that are sealed, and back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_VALUE_H
#define ENVELOPE_VALUE_H

#include "fmgr.h"

#include "crypto/format.h"

/* What a type depends on when it becomes text */
typedef enum ValueForm
{
	VALUE_BYTES,				/* the bytes of the varlena: text, bytea */
	VALUE_PLAIN,				/* no setting */
	VALUE_SETTINGS,				/* DateStyle and the like */
	VALUE_SEARCH_PATH			/* those, and how names are looked up */
} ValueForm;

/* A column's type, ready to be converted from and to */
typedef struct ValueType
{
	Oid			type;
	int32		typmod;
	Oid			base;			/* below all domains */
	SealedKind	kind;
	ValueForm	form;
	bool		is_citext;
	bool		runs_code;		/* as value_input_runs_code says */
	FmgrInfo	output;
	FmgrInfo	input;
	Oid			ioparam;
} ValueType;

extern void value_type_init(ValueType *vt, Oid type, int32 typmod,
							MemoryContext context);
extern const char *value_to_plaintext(const ValueType *vt, Datum value,
									  size_t *len);
extern Datum value_from_plaintext(const ValueType *vt, SealedKind kind,
								  struct varlena *plaintext);
extern const char *value_to_term_text(const ValueType *vt, Datum value,
									  size_t *len);
extern bool value_input_runs_code(Oid type);
extern const char *value_unsearchable(Oid type, Oid collation);

extern bool value_is_tenant_type(Oid type);
extern const char *value_tenant(Oid type, Datum value);

#endif							/* ENVELOPE_VALUE_H */
