# majors: 15 18
# python: clients
#
# What test/fuzz/twin/features.txt says of protected tables is true, and
# docs/protected-tables-list.md, which is written from it, is current.  To write
# that page anew:
#
#   bash test/run --major 18 --suite features --keep
#
# and take it from the folder that is kept, 18/features/list.md.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$TEST_FOLDER/server" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'"
trap 'stop_cluster "$TEST_FOLDER/server" "$TEST_TREE"' EXIT

in_cluster "$TEST_FOLDER/server" "$TEST_TREE" "$TEST_PYTHON/python" -B \
	"$TEST_ROOT/test/fuzz/twin/features.py" "$TEST_FOLDER/list.md" || true

# The newest version has all of the statements, and writes the page.
[[ $MAJOR == 18 ]] || exit 0
if diff -u "$TEST_ROOT/docs/protected-tables-list.md" "$TEST_FOLDER/list.md"; then
	echo 'ok 1000 - the page is current'
else
	echo 'not ok 1000 - the page is current'
fi
