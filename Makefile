# envelope: a key for every tenant
#
# make && make install, with PG_CONFIG naming the server to build for
# (PostgreSQL 15 to 18).  bash test/run builds and tests all four.

MODULE_big = envelope
EXTENSION = envelope
DATA = sql/envelope--1.0.sql
PGFILEDESC = "envelope - transparent envelope encryption, a key per tenant"

OBJS = \
	src/envelope.o \
	src/settings.o \
	src/shmem.o \
	src/api/args.o \
	src/api/fields.o \
	src/api/keks.o \
	src/api/protected.o \
	src/api/rotation.o \
	src/api/tenants.o \
	src/api/views.o \
	src/crypto/aead.o \
	src/crypto/derive.o \
	src/crypto/format.o \
	src/crypto/sign.o \
	src/keys/audit.o \
	src/keys/cache.o \
	src/keys/catalog.o \
	src/keys/encoding.o \
	src/keys/guard.o \
	src/keys/keyring.o \
	src/keys/memo.o \
	src/keys/pending.o \
	src/keys/provision.o \
	src/keys/store.o \
	src/keys/tenant.o \
	src/keys/uses.o \
	src/kms/accept.o \
	src/kms/answer.o \
	src/kms/ask.o \
	src/kms/aws.o \
	src/kms/aws_credentials.o \
	src/kms/aws_files.o \
	src/kms/buffer.o \
	src/kms/call.o \
	src/kms/calllog.o \
	src/kms/credential.o \
	src/kms/endpoint.o \
	src/kms/faults.o \
	src/kms/fetch.o \
	src/kms/gcp.o \
	src/kms/gcp_credentials.o \
	src/kms/http.o \
	src/kms/json.o \
	src/kms/local.o \
	src/kms/options.o \
	src/kms/profiles.o \
	src/kms/provider.o \
	src/kms/queue.o \
	src/kms/request.o \
	src/kms/retry.o \
	src/kms/stats.o \
	src/kms/task.o \
	src/kms/vault.o \
	src/kms/vault_credentials.o \
	src/kms/verdict.o \
	src/kms/worker.o \
	src/lifecycle/death.o \
	src/lifecycle/destruction.o \
	src/lifecycle/flip.o \
	src/lifecycle/maintenance.o \
	src/lifecycle/index_builder.o \
	src/lifecycle/pass.o \
	src/lifecycle/privileges.o \
	src/lifecycle/progress.o \
	src/lifecycle/protect_live.o \
	src/lifecycle/protect_live_check.o \
	src/lifecycle/protect_live_rows.o \
	src/lifecycle/rewrap.o \
	src/lifecycle/rewrap_kek.o \
	src/lifecycle/rotation.o \
	src/lifecycle/steps.o \
	src/lifecycle/sweep.o \
	src/lifecycle/sweep_index.o \
	src/lifecycle/sweep_reencrypt.o \
	src/lifecycle/sweep_scan.o \
	src/lifecycle/verify.o \
	src/tables/alter.o \
	src/tables/arbiters.o \
	src/tables/copy.o \
	src/tables/ddl.o \
	src/tables/ddl_alter.o \
	src/tables/ddl_beside.o \
	src/tables/ddl_copies.o \
	src/tables/ddl_create.o \
	src/tables/ddl_plan.o \
	src/tables/functions.o \
	src/tables/hide.o \
	src/tables/implied.o \
	src/tables/inline.o \
	src/tables/open.o \
	src/tables/planner.o \
	src/tables/positions.o \
	src/tables/protect.o \
	src/tables/protect_progress.o \
	src/tables/protection.o \
	src/tables/refuse.o \
	src/tables/register.o \
	src/tables/registry.o \
	src/tables/rewrite.o \
	src/tables/samples.o \
	src/tables/seal.o \
	src/tables/seal_check.o \
	src/tables/seal_guard.o \
	src/tables/search.o \
	src/tables/search_column.o \
	src/tables/search_tenant.o \
	src/tables/statistics.o \
	src/tables/substitute.o \
	src/tables/term.o \
	src/tables/term_index.o \
	src/tables/term_index_live.o \
	src/tables/term_index_parts.o \
	src/tables/term_leak.o \
	src/tables/trigger_call.o \
	src/tables/triggers.o \
	src/tables/utility.o \
	src/tables/value.o

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -ljansson -lcrypto

# In sql/ and expected/; the server must preload the library.
REGRESS = setup fields large keks_tenants guard session transactions usage doctor faults privileges databases protect protected_reads protected_search protected_estimates protect_data protected_star protect_ddl protect_checks protected_writes protected_others protected_types protect_triggers protect_refused intruders rotation rotation_index destruction protect_live protected_18
# The same, on a server that does not preload it.
REGRESS_NOPRELOAD = nopreload
# In test/isolation/specs and test/isolation/expected.
ISOLATION = suspend running miss create provision prepared kek memo serializable rotate rotate_index protected temporary flip
ISOLATION_OPTS = --inputdir=$(srcdir)/test/isolation

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS writes no header dependencies unless the server was built with them.
$(OBJS): $(wildcard $(addprefix $(srcdir)/src/,*.h */*.h))
