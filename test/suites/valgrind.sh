# majors: 18-assert
# when: all
# packages: valgrind
#
# pg_regress and the isolation tests under valgrind, on a server that tells
# valgrind about its memory contexts.  Everything takes some fifty times as long
# there, so three tests are left out: "large", of values of many megabytes, and
# "doctor" and "privileges",
# which run SQL that is ours but hardly any of our C.  Nor is it tracked where
# undefined values come from, which would double the time: add --track-origins=yes
# to look into what is found.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=test/lib/checked.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/checked.sh"

checked_build
checked_server valgrind --quiet --error-limit=no \
	--suppressions="$(pg_source_dir 18)/src/tools/valgrind.supp" \
	--log-file="$TEST_FOLDER/valgrind.%p"
tests=$(sed -n 's/^REGRESS = //p' "$TEST_ROOT/Makefile" | sed -E 's/ (large|doctor|privileges)\>//g')
checked_run regress REGRESS="$tests" ISOLATION=
checked_run isolation REGRESS=
stop_cluster "$checked_cluster" "$checked_tree"
checked_report 'error that valgrind sees' "$(cat "$TEST_FOLDER"/valgrind.*)"
checked_report 'crash' "$(cluster_crashes "$checked_cluster")"
