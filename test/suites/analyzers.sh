# majors: 18
# when: all
# packages: clang-tidy
#
# gcc's analyzer and clang-tidy, as .clang-tidy sets it up, find nothing.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

cd "$TEST_ROOT"
mapfile -t files < <(find src -name '*.c' | sort)
flags=(-O2 -fPIC -D_GNU_SOURCE -Isrc -isystem "$("$PG_CONFIG" --includedir-server)")
number=0

# analyze NAME FILE COMMAND...: one file, one test; what was found is shown.
analyze()
{
	local what="$1 finds nothing in $2" result='not ok'
	shift 2
	! "$@" >"$TEST_FOLDER/findings" 2>&1 || result=ok
	number=$((number + 1))
	echo "$result $number - $what"
	[[ $result == ok ]] || sed 's/^/# /' "$TEST_FOLDER/findings"
}

for file in "${files[@]}"; do
	analyze 'gcc -fanalyzer' "$file" \
		gcc -fanalyzer -Werror "${flags[@]}" -c -o /dev/null "$file"
	analyze clang-tidy "$file" clang-tidy --quiet "$file" -- -std=gnu99 "${flags[@]}"
done
