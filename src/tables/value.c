/*-------------------------------------------------------------------------
 *
 * value.c
 *	  Values of SQL types as the bytes that are sealed, and back.
 *
 * A value of type bytea is sealed as its bytes, any other as the text that its
 * type's output function gives.  That text must be the same whatever the
 * session's settings are, so that it can be read back under others, and so that
 * equal values have equal terms: a date written under DateStyle 'SQL, DMY'
 * would be read back as another date.  So DateStyle, IntervalStyle, TimeZone,
 * extra_float_digits and, for types that print names, search_path are pinned
 * while a value is converted.
 *
 * The first four are variables of the server that these types read, and are
 * set directly and put back on every way out: two calls of set_config_option
 * a value would cost more than sealing it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

#include "compat.h"
#include "errors.h"
#include "keys/encoding.h"
#include "tables/value.h"

/* The settings that values depend on, as they were */
typedef struct SavedSettings
{
	int			date_style;
	int			date_order;
	int			interval_style;
	int			float_digits;
	pg_tz	   *timezone;
	int			guc_level;		/* 0 where search_path was not pinned */
} SavedSettings;

static void
pin_settings(ValueForm form, SavedSettings *saved)
{
	static pg_tz *utc = NULL;

	if (utc == NULL)
		utc = pg_tzset("UTC");
	saved->date_style = DateStyle;
	saved->date_order = DateOrder;
	saved->interval_style = IntervalStyle;
	saved->float_digits = extra_float_digits;
	saved->timezone = session_timezone;
	saved->guc_level = 0;
	if (form == VALUE_SEARCH_PATH)
	{
		saved->guc_level = NewGUCNestLevel();
		(void) set_config_option("search_path", "pg_catalog, pg_temp",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	DateStyle = USE_ISO_DATES;
	DateOrder = DATEORDER_MDY;
	IntervalStyle = INTSTYLE_POSTGRES;
	extra_float_digits = 1;
	session_timezone = utc;
}

static void
restore_settings(const SavedSettings *saved)
{
	DateStyle = saved->date_style;
	DateOrder = saved->date_order;
	IntervalStyle = saved->interval_style;
	extra_float_digits = saved->float_digits;
	session_timezone = saved->timezone;
	if (saved->guc_level)
		AtEOXact_GUC(false, saved->guc_level);
}

static bool
type_is_citext(Oid type)
{
	Oid			extension;

	if (type < FirstNormalObjectId || get_typtype(type) != TYPTYPE_BASE ||
		type_is_array(type))
		return false;
	extension = getExtensionOfObject(TypeRelationId, type);
	return OidIsValid(extension) &&
		strcmp(get_extension_name(extension), "citext") == 0;
}

/* What does the text of a type depend on? */
static ValueForm
form_of(Oid type)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BYTEAOID:
			return VALUE_BYTES;
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case UUIDOID:
		case BPCHAROID:
		case JSONOID:
		case JSONBOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case OIDOID:
		case BITOID:
		case VARBITOID:
			return VALUE_PLAIN;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case FLOAT4OID:
		case FLOAT8OID:
			return VALUE_SETTINGS;
		default:
			break;
	}
	if (type_is_enum(type))
		return VALUE_PLAIN;
	if (type_is_array(type))
	{
		Oid			element = get_base_element_type(type);

		return Max(form_of(element), VALUE_PLAIN);
	}
	return VALUE_SEARCH_PATH;
}

/*
 * Make a type ready to be converted from and to, for as long as the context
 * lives.
 */
void
value_type_init(ValueType *vt, Oid type, int32 typmod, MemoryContext context)
{
	Oid			output;
	Oid			input;
	bool		is_varlena;

	vt->type = type;
	vt->typmod = typmod;
	/* Those that the server itself was made with are no domains. */
	vt->base = type < FirstGenbkiObjectId ? type :
		getBaseTypeAndTypmod(type, &vt->typmod);
	vt->kind = vt->base == BYTEAOID ? KIND_BYTEA : KIND_TEXT;
	vt->is_citext = type_is_citext(vt->base);
	vt->runs_code = value_input_runs_code(vt->base);
	vt->form = vt->is_citext ? VALUE_BYTES : form_of(vt->base);
	if (vt->form == VALUE_BYTES)
		return;					/* neither function is ever called */
	getTypeOutputInfo(vt->base, &output, &is_varlena);
	getTypeInputInfo(vt->base, &input, &vt->ioparam);
	fmgr_info_cxt(output, &vt->output, context);
	fmgr_info_cxt(input, &vt->input, context);
}

/* The text that the type's output function gives, under pinned settings */
static char *
output_text(const ValueType *vt, Datum value)
{
	SavedSettings saved;
	char	   *volatile result = NULL;

	if (vt->form == VALUE_PLAIN)
		return OutputFunctionCall(unconstify(FmgrInfo *, &vt->output), value);

	pin_settings(vt->form, &saved);
	PG_TRY();
	{
		result = OutputFunctionCall(unconstify(FmgrInfo *, &vt->output), value);
	}
	PG_FINALLY();
	{
		restore_settings(&saved);
	}
	PG_END_TRY();
	return result;
}

/*
 * What is sealed for a value, as kind vt->kind: its bytes, or its text in
 * UTF-8.  The result is palloc'd or points into the value, and is not always
 * zero-terminated.
 */
const char *
value_to_plaintext(const ValueType *vt, Datum value, size_t *len)
{
	const char *text;

	if (vt->form == VALUE_BYTES)
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

		*len = VARSIZE_ANY_EXHDR(bytes);
		text = VARDATA_ANY(bytes);

		if (vt->kind == KIND_BYTEA)
			return text;
	}
	else
	{
		text = output_text(vt, value);

		*len = strlen(text);
	}
	return utf8_from_server(text, len);
}

pg_noreturn static void
report_not_of_type(const ValueType *vt)
{
	ereport(ERROR,
			(errcode(ERRCODE_ENVELOPE_CORRUPT),
			 errmsg("the opened value is not one of type %s",
					format_type_be(vt->type))));
}

/*
 * The value whose text this is.  An error of the input function would show the
 * value; it is replaced by one that does not, and the transaction ends.
 */
static Datum
input_text(const ValueType *vt, const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	SavedSettings saved;
	bool		pins = vt->form != VALUE_PLAIN;
	volatile Datum result = (Datum) 0;

	if (pins)
		pin_settings(vt->form, &saved);
	PG_TRY();
	{
		result = InputFunctionCall(unconstify(FmgrInfo *, &vt->input),
								   unconstify(char *, text), vt->ioparam,
								   vt->typmod);
		if (pins)
			restore_settings(&saved);
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		if (pins)
			restore_settings(&saved);
		if (category != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) &&
			category != ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		report_not_of_type(vt);
	}
	PG_END_TRY();
	return result;
}

/*
 * The reverse of value_to_plaintext: a palloc'd value of the type, which may be
 * the plaintext itself.  VE004, without the value, where the plaintext is none
 * of the type.
 */
Datum
value_from_plaintext(const ValueType *vt, SealedKind kind,
					 struct varlena *plaintext)
{
	const char *text = VARDATA(plaintext);
	size_t		len = VARSIZE(plaintext) - VARHDRSZ;

	if (kind != vt->kind)
		report_not_of_type(vt);
	if (kind == KIND_TEXT)
		text = utf8_to_server(text, &len);

	if (vt->form == VALUE_BYTES && text == VARDATA(plaintext))
		return PointerGetDatum(plaintext);
	if (vt->form == VALUE_BYTES)
		return PointerGetDatum(cstring_to_text_with_len(text, (int) len));
	return input_text(vt, pnstrdup(text, len));
}

/*
 * What is hashed into the term of a value, as kind vt->kind: the same for
 * values that the type's equality calls equal, which value_unsearchable vouches
 * for.
 */
const char *
value_to_term_text(const ValueType *vt, Datum value, size_t *len)
{
	const char *lower;

	if (!vt->is_citext)
		return value_to_plaintext(vt, value, len);

	lower = TextDatumGetCString(value);
	lower = str_tolower(lower, strlen(lower), DEFAULT_COLLATION_OID);
	*len = strlen(lower);
	return utf8_from_server(lower, len);
}

/*
 * Why columns of a type and collation cannot be searched by terms; NULL where
 * they can.
 */
const char *
value_unsearchable(Oid type, Oid collation)
{
	Oid			base = getBaseType(type);

	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		return "its collation is not deterministic";
	switch (base)
	{
		case TEXTOID:
		case VARCHAROID:
		case BYTEAOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case BOOLOID:
		case UUIDOID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
			return NULL;
		default:
			break;
	}
	if (type_is_enum(base) || type_is_citext(base))
		return NULL;
	return "equal values of its type can have different texts";
}

/*
 * Does reading a value of a type evaluate what a user of the database has
 * written?  That of a domain does, which is checked within arrays and ranges.
 */
bool
value_input_runs_code(Oid type)
{
	Oid			part = getBaseType(type);

	if (type_is_range(part))
		part = get_range_subtype(part);
	else if (type_is_multirange(part))
		part = get_range_subtype(get_multirange_range(part));
	else if (type_is_array_domain(part))
		part = get_base_element_type(part);
	else
		return type_is_rowtype(part);
	return get_typtype(part) == TYPTYPE_DOMAIN || value_input_runs_code(part);
}

/* Can a column of this type hold tenant ids? */
bool
value_is_tenant_type(Oid type)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case UUIDOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return true;
		default:
			return false;
	}
}

/* A tenant id as palloc'd UTF-8; the type is one of value_is_tenant_type. */
const char *
value_tenant(Oid type, Datum value)
{
	char	   *buffer;
	size_t		len;
	const char *utf8;

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			buffer = palloc(MAXINT8LEN + 1);
			(void) pg_lltoa(type == INT2OID ? DatumGetInt16(value) :
							type == INT4OID ? DatumGetInt32(value) :
							DatumGetInt64(value), buffer);
			return buffer;
		case UUIDOID:
			return DatumGetCString(DirectFunctionCall1(uuid_out, value));
		default:
			buffer = TextDatumGetCString(value);
			len = strlen(buffer);
			utf8 = utf8_from_server(buffer, &len);
			return utf8;
	}
}
