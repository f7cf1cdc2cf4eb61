/*-------------------------------------------------------------------------
 *
 * fields.c
 *	  The SQL functions that seal, open and hash values.
 *
 * Each exists for tenant ids of type text, bigint and uuid, and those that take
 * a plaintext for text and bytea, so that every SQL function has a C function
 * of its own: what it takes is known without a look at the call's types.
 *
 * None is strict: a null value gives null, but a null tenant or context beside
 * a value is an error, never a silent null.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "compat.h"
#include "keys/encoding.h"

PG_FUNCTION_INFO_V1(envelope_is_sealed);
PG_FUNCTION_INFO_V1(envelope_key_id);

/*
 * Define the SQL functions NAME_for_text, _bigint and _uuid, which call BODY
 * with how to take the tenant, and with whatever else is given.
 */
#define FIELD_FUNCTION(name, body, ...) \
	PG_FUNCTION_INFO_V1(name##_for_text); \
	Datum \
	name##_for_text(PG_FUNCTION_ARGS) \
	{ \
		return body(fcinfo, args_tenant_text, ##__VA_ARGS__); \
	} \
	PG_FUNCTION_INFO_V1(name##_for_bigint); \
	Datum \
	name##_for_bigint(PG_FUNCTION_ARGS) \
	{ \
		return body(fcinfo, args_tenant_bigint, ##__VA_ARGS__); \
	} \
	PG_FUNCTION_INFO_V1(name##_for_uuid); \
	Datum \
	name##_for_uuid(PG_FUNCTION_ARGS) \
	{ \
		return body(fcinfo, args_tenant_uuid, ##__VA_ARGS__); \
	} \
	extern int no_such_function_##name

/* The plaintext, argument 1, as what is sealed: text as UTF-8 */
static const char *
plaintext_bytes(struct varlena *plaintext, SealedKind kind, size_t *len)
{
	*len = VARSIZE_ANY_EXHDR(plaintext);
	return kind == KIND_TEXT ?
		utf8_from_server(VARDATA_ANY(plaintext), len) : VARDATA_ANY(plaintext);
}

/* Seal argument 1. */
static Datum
seal(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant,
	 SealedAlgorithm algorithm, SealedKind kind)
{
	LabelArgs	args;
	struct varlena *plaintext;
	const char *bytes;
	size_t		len;
	bytea	   *sealed;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	args_label(fcinfo, take_tenant, &args);
	plaintext = PG_GETARG_VARLENA_PP(1);
	bytes = plaintext_bytes(plaintext, kind, &len);
	sealed = keyring_seal(&args.label, algorithm, kind, bytes, len);
	PG_FREE_IF_COPY(plaintext, 1);
	PG_RETURN_BYTEA_P(sealed);
}

/* Open argument 1 as what it is asked for as. */
static Datum
open_as(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant, SealedKind wanted)
{
	LabelArgs	args;
	bytea	   *sealed;
	struct varlena *plaintext;
	SealedKind	kind;
	size_t		len;
	const char *server;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	args_label(fcinfo, take_tenant, &args);
	sealed = PG_GETARG_BYTEA_PP(1);
	plaintext = keyring_read(&args.label, sealed, &kind);
	PG_FREE_IF_COPY(sealed, 1);
	if (plaintext == NULL)
		PG_RETURN_NULL();

	if (kind != wanted)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the value was sealed as %s",
						kind == KIND_TEXT ? "text" : "bytea"),
				 errhint("Open it by %s.",
						 kind == KIND_TEXT ? "envelope_decrypt" : "envelope_decrypt_bytea")));
	if (kind == KIND_TEXT)
	{
		len = VARSIZE(plaintext) - VARHDRSZ;
		server = utf8_to_server(VARDATA(plaintext), &len);
		if (server != VARDATA(plaintext))
			PG_RETURN_TEXT_P(cstring_to_text_with_len(server, (int) len));
	}
	PG_RETURN_POINTER(plaintext);
}

/*
 * How many bytes a term of argument 3, bits, has.
 */
static int
term_bytes(FunctionCallInfo fcinfo)
{
	int			bits;

	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the number of bits must not be null")));
	bits = PG_GETARG_INT32(3);
	if (bits < 16 || bits > 8 * TERM_MAX_BYTES || bits % 8 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a blind index cannot have %d bits", bits),
				 errdetail("It has 16 to %d bits, in steps of 8.", 8 * TERM_MAX_BYTES)));
	return bits / 8;
}

static Datum
return_term(const ValueLabel *label, SealedKind kind, const char *bytes,
			size_t len, int nbytes)
{
	uint8		term[TERM_MAX_BYTES];
	bytea	   *result = palloc(VARHDRSZ + nbytes);

	keyring_term(label, kind, bytes, len, term);
	SET_VARSIZE(result, VARHDRSZ + nbytes);
	memcpy(VARDATA(result), term, nbytes);
	PG_RETURN_BYTEA_P(result);
}

/* Hash argument 1. */
static Datum
term(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant, SealedKind kind)
{
	LabelArgs	args;
	struct varlena *plaintext;
	const char *bytes;
	size_t		len;
	int			nbytes;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	args_label(fcinfo, take_tenant, &args);
	nbytes = term_bytes(fcinfo);
	plaintext = PG_GETARG_VARLENA_PP(1);
	bytes = plaintext_bytes(plaintext, kind, &len);
	return return_term(&args.label, kind, bytes, len, nbytes);
}

/* Hash what is sealed in argument 1. */
static Datum
term_of_sealed(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant)
{
	LabelArgs	args;
	struct varlena *plaintext;
	SealedKind	kind;
	int			nbytes;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	args_label(fcinfo, take_tenant, &args);
	nbytes = term_bytes(fcinfo);
	plaintext = keyring_open(&args.label, PG_GETARG_BYTEA_PP(1), &kind);
	return return_term(&args.label, kind, VARDATA(plaintext),
					   VARSIZE(plaintext) - VARHDRSZ, nbytes);
}

/* Seal argument 1 anew, unless it is under the key that seals now. */
static Datum
reseal(FunctionCallInfo fcinfo, tenant_arg_fn take_tenant)
{
	LabelArgs	args;
	bytea	   *sealed;
	struct varlena *plaintext;
	SealedKind	kind;
	SealedValue value;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	args_label(fcinfo, take_tenant, &args);
	sealed = PG_GETARG_BYTEA_PP(1);
	plaintext = keyring_open(&args.label, sealed, &kind);
	if (keyring_is_current(&args.label, sealed))
		PG_RETURN_BYTEA_P(sealed);

	(void) sealed_parse((const uint8 *) VARDATA_ANY(sealed),
						VARSIZE_ANY_EXHDR(sealed), &value);
	PG_RETURN_BYTEA_P(keyring_seal(&args.label, value.algorithm, kind,
								   VARDATA(plaintext), VARSIZE(plaintext) - VARHDRSZ));
}

FIELD_FUNCTION(envelope_encrypt_text, seal, SEALED_GCM, KIND_TEXT);
FIELD_FUNCTION(envelope_encrypt_bytea, seal, SEALED_GCM, KIND_BYTEA);
FIELD_FUNCTION(envelope_encrypt_deterministic_text, seal, SEALED_SIV, KIND_TEXT);
FIELD_FUNCTION(envelope_encrypt_deterministic_bytea, seal, SEALED_SIV, KIND_BYTEA);
FIELD_FUNCTION(envelope_decrypt, open_as, KIND_TEXT);
FIELD_FUNCTION(envelope_decrypt_bytea, open_as, KIND_BYTEA);
FIELD_FUNCTION(envelope_blind_index_text, term, KIND_TEXT);
FIELD_FUNCTION(envelope_blind_index_bytea, term, KIND_BYTEA);
FIELD_FUNCTION(envelope_blind_index_of, term_of_sealed);
FIELD_FUNCTION(envelope_reencrypt, reseal);

/*
 * The parsed header of a bytea argument; false where it is no sealed value.
 * Of a value that is stored out of line only the beginning is fetched.
 */
static bool
parse_header(FunctionCallInfo fcinfo, SealedValue *value)
{
	Datum		datum = PG_GETARG_DATUM(0);
	size_t		len = toast_raw_datum_size(datum) - VARHDRSZ;
	bytea	   *header;

	if (len < SEALED_HEADER_BYTES)
		return false;
	header = PG_GETARG_BYTEA_P_SLICE(0, 0, SEALED_HEADER_BYTES);
	return sealed_parse((const uint8 *) VARDATA(header), len, value);
}

/* Is this a sealed value, as far as can be told without a key? */
Datum
envelope_is_sealed(PG_FUNCTION_ARGS)
{
	SealedValue value;

	PG_RETURN_BOOL(parse_header(fcinfo, &value));
}

/* The id of the key a value is sealed under; NULL where it is none. */
Datum
envelope_key_id(PG_FUNCTION_ARGS)
{
	SealedValue value;

	if (!parse_header(fcinfo, &value))
		PG_RETURN_NULL();
	PG_RETURN_INT64(value.key_id);
}
