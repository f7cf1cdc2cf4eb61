# majors: 18-assert
# when: all
# source: 18
#
# PostgreSQL's own regression tests, with the library preloaded, the extension
# installed, and a protected table in the database: what has nothing to do with
# protected tables must not notice that they exist.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

core=$(pg_source_dir 18)/src/test/regress
built=$("$TEST_TREE/bin/pg_config" --pkglibdir)/pgxs/src/test/regress
outputs=$TEST_FOLDER/out
mkdir -p "$outputs"
give_to_tester "$outputs"

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$TEST_FOLDER/server" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'" \
	"max_prepared_transactions = 10"
trap 'stop_cluster "$TEST_FOLDER/server" "$TEST_TREE"' EXIT

# The tests make their own database, from the template.
in_cluster "$TEST_FOLDER/server" "$TEST_TREE" psql -X -q -v ON_ERROR_STOP=1 -d template1 <<'END'
CREATE SCHEMA protection;
CREATE EXTENSION envelope SCHEMA protection;
END

status=0
in_cluster "$TEST_FOLDER/server" "$TEST_TREE" "$built/pg_regress" \
	--inputdir="$core" --expecteddir="$core" --outputdir="$outputs" \
	--dlpath="$built" --bindir="$TEST_TREE/bin" \
	--schedule="$core/parallel_schedule" --max-connections=4 \
	--host="$TEST_FOLDER/server" --port=5432 --user=postgres || status=$?
[[ ! -s $outputs/regression.diffs ]] || head -n 200 "$outputs/regression.diffs"
crashes=$(cluster_crashes "$TEST_FOLDER/server")
if [[ -n $crashes ]]; then
	echo "$crashes"
	status=1
fi
exit "$status"
