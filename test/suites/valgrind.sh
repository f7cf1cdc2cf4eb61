# majors: 18-assert
# when: all
# packages: valgrind
#
# pg_regress under valgrind, on a server that tells valgrind about its memory
# contexts; without the tests of large values, each of which takes minutes there.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=test/lib/checked.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/checked.sh"

checked_build
checked_server valgrind --quiet --trace-children=yes --track-origins=yes --error-limit=no \
	--suppressions="$(pg_source_dir 18)/src/tools/valgrind.supp" \
	--log-file="$TEST_FOLDER/valgrind.%p"
tests=$(sed -n 's/^REGRESS = //p' "$TEST_ROOT/Makefile")
checked_run regress REGRESS="${tests/ large / }" ISOLATION=
stop_cluster "$checked_cluster" "$checked_tree"
checked_report 'error that valgrind sees' "$(cat "$TEST_FOLDER"/valgrind.*)"
checked_report 'crash' "$(cluster_crashes "$checked_cluster")"
