/*-------------------------------------------------------------------------
 *
 * kms_reply_fuzzer.c
 *	  Replies of a KMS: whatever comes, each provider makes of it an answer
 *	  that keeps its limits, and a key only where the reply is whole.
 *
 * The first byte says which provider and operation, the second which HTTP
 * status and how many tasks; what follows is the body.
 *
 * sources: src/kms/answer.c src/kms/aws.c src/kms/aws_files.c src/kms/buffer.c src/kms/gcp.c src/kms/json.c src/kms/options.c src/kms/request.c src/kms/vault.c
 * libraries: -ljansson
 * seeds: kms_reply_seeds.py
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/json.h"
#include "kms/provider.h"

#define TASKS_MAX 4

/* What the sources want, but not for parsing */
const CredentialKind aws_credentials = {.name = "AWS"};
const CredentialKind gcp_credentials = {.name = "Google"};
const CredentialKind vault_credentials = {.name = "Vault"};

static const KmsProvider *const providers[] = {&aws_provider, &gcp_provider, &vault_provider};
static const char *const uris[] = {
	"aws-kms://arn:aws:kms:eu-central-1:111122223333:key/k",
	"gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k",
	"hcvault://vault:8200/transit/keys/k"
};
static const KmsOperation operations[] = {KMS_UNWRAP, KMS_GENERATE, KMS_WRAP, KMS_REWRAP};
static const long statuses[] = {200, 400, 401, 403, 404, 412, 429, 500, 503, 302};

extern int	LLVMFuzzerInitialize(int *argc, char ***argv);
extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* As Assert, but always there */
static void
must(bool holds, const char *what)
{
	if (!holds)
	{
		fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	jdoc_wipe_what_is_freed();
	return 0;
}

static void
check_answer(const KmsTask *task, const KmsAnswer *answer, long status, bool batch)
{
	static const Dek none;

	must(memchr(answer->detail, '\0', sizeof(answer->detail)) != NULL &&
		 memchr(answer->kek_version, '\0', sizeof(answer->kek_version)) != NULL &&
		 memchr(answer->request_id, '\0', sizeof(answer->request_id)) != NULL,
		 "its texts end");
	must(answer->wrapped_len <= WRAPPED_DEK_MAX, "the wrapped key fits");
	if (answer->outcome == KMS_OK)
	{
		must(status == 200 || batch, "an error is never ok");
		must(task->operation == KMS_UNWRAP || answer->wrapped_len > 0, "a wrapped key is there");
	}
	else
	{
		must(answer->detail[0] != '\0', "it says why");
		must(memcmp(&answer->dek, &none, sizeof(none)) == 0, "no key is left behind");
	}
	must(answer->outcome != KMS_DENIED || status >= 400 || batch, "only an error denies");
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static KmsAnswer answers[TASKS_MAX];
	KmsTask		tasks[TASKS_MAX] = {0};
	HttpReply	reply = {.answered = true};
	const KmsProvider *provider;
	int			which;
	int			ntasks;

	if (size < 2)
		return 0;
	which = data[0] % lengthof(providers);
	provider = providers[which];
	reply.status = statuses[data[1] % lengthof(statuses)];
	ntasks = provider->batch_max > 1 ? 1 + (data[1] >> 4) % TASKS_MAX : 1;
	for (int i = 0; i < ntasks; i++)
	{
		tasks[i].operation = operations[(data[0] >> 4) % lengthof(operations)];
		tasks[i].uri = tasks[i].target_uri = uris[which];
		tasks[i].options = tasks[i].target_options = "{}";
		tasks[i].tenant = "acme";
		tasks[i].key_id = 42;
	}
	buffer_append(&reply.body, data + 2, size - 2);
	memset(answers, 0, sizeof(answers));
	provider->parse(tasks, ntasks, &reply, answers);
	for (int i = 0; i < ntasks; i++)
		check_answer(&tasks[i], &answers[i], reply.status, ntasks > 1);
	buffer_reset(&reply.body);
	return 0;
}
