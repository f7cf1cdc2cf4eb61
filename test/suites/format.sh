# majors: 15
# python: format
#
# docs/format.md is enough to open what the module seals, and to make what it
# opens: an implementation in another language, from that page alone, does both
# on a live dump.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

"$TEST_PYTHON/python" "$TEST_ROOT/test/python/known_answers.py"

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$TEST_FOLDER/server" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'"
trap 'stop_cluster "$TEST_FOLDER/server" "$TEST_TREE"' EXIT

cluster_psql "$TEST_FOLDER/server" "$TEST_TREE" -q -o /dev/null <<'END'
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_create_tenants(array['t1', 'Zürich', '42']);
END
# A second version, so that more than one has wrapped.
head -c 32 /dev/urandom >"$TEST_FOLDER/keks/platform.2.key"
chmod 600 "$TEST_FOLDER/keks/platform.2.key"
cluster_psql "$TEST_FOLDER/server" "$TEST_TREE" -q -o /dev/null <<'END'
SELECT envelope_create_tenant('late');
CREATE TABLE customers AS
	SELECT t AS tenant, t || ' value ' || g || ' ü€😀' AS plain,
		envelope_encrypt(t, t || ' value ' || g || ' ü€😀', 'public.customers.a') AS a,
		envelope_encrypt(t, convert_to(t || ' value ' || g || ' ü€😀', 'UTF8'), '') AS b,
		envelope_encrypt_deterministic(t, t || ' value ' || g || ' ü€😀', 'ctx ü') AS d,
		envelope_blind_index(t, t || ' value ' || g || ' ü€😀', 'ctx ü', 256) AS term
	FROM unnest(array['t1', 'Zürich', '42', 'late']) t, generate_series(1, 50) g;
INSERT INTO customers
	SELECT 't1', '', envelope_encrypt('t1', '', 'public.customers.a'), envelope_encrypt('t1', ''::bytea, ''),
		envelope_encrypt_deterministic('t1', '', 'ctx ü'), envelope_blind_index('t1', '', 'ctx ü', 256);
END
in_cluster "$TEST_FOLDER/server" "$TEST_TREE" pg_dump -d postgres >"$TEST_FOLDER/dump.sql"

"$TEST_PYTHON/python" "$TEST_ROOT/test/python/format_test.py" \
	"$TEST_FOLDER/dump.sql" "$TEST_FOLDER/keks" "$TEST_FOLDER/made.sql"

# The same by hand, as docs/format.md says.
opened=$("$TEST_PYTHON/python" "$TEST_ROOT/test/python/envelope_format.py" "$TEST_FOLDER/dump.sql" \
	"$TEST_FOLDER/keks" public.customers:tenant:a:public.customers.a public.customers:tenant:b:)
if [[ $opened == $'public.customers.a: 201 values opened\npublic.customers.b: 201 values opened' ]]; then
	echo 'ok 100 - the program opens every value of a dump'
else
	echo "not ok 100 - the program opens every value of a dump: $opened"
fi

# What was made outside opens inside.
cluster_psql "$TEST_FOLDER/server" "$TEST_TREE" -A -t -q -f "$TEST_FOLDER/made.sql"

# The vectors of the page are right, and the server agrees.
"$TEST_PYTHON/python" "$TEST_ROOT/test/python/vectors_test.py" \
	"$TEST_ROOT/docs/format.md" "$TEST_FOLDER/vectors.sql" "$TEST_FOLDER/keks/vectors.1.key"
chmod 600 "$TEST_FOLDER/keks/vectors.1.key"
cluster_psql "$TEST_FOLDER/server" "$TEST_TREE" -A -t -q -f "$TEST_FOLDER/vectors.sql"
