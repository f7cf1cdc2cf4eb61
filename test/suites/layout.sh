# majors: 18
# source: 18
#
# The C sources have pgindent's layout.  To mend them:
#
#   bash test/suites/layout.sh --mend

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

cd "$ENVELOPE_ROOT"
[[ ${1:-} != --mend ]] || ensure_source
tools=$(pg_source_dir 18)/src/tools
if [[ ! -x $tools/pg_bsd_indent/pg_bsd_indent ]]; then
	echo "ok 1 # SKIP this version's source has no pg_bsd_indent"
	exit
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sort -u "$tools/pgindent/typedefs.list" src/typedefs.list >"$scratch/typedefs"

# indent FILE...: in place.
indent()
{
	perl "$tools/pgindent/pgindent" --indent="$tools/pg_bsd_indent/pg_bsd_indent" \
		--typedefs="$scratch/typedefs" "$@"
}

mapfile -t files < <(find src -name '*.[ch]' | sort)
if [[ ${1:-} == --mend ]]; then
	indent "${files[@]}"
	exit
fi

cp -R src "$scratch/src"
(cd "$scratch" && indent "${files[@]}")
if diff -ru src "$scratch/src"; then
	echo "ok 1 - the sources have pgindent's layout"
else
	echo "not ok 1 - the sources have pgindent's layout"
fi
