# majors: 18
# packages: libclang-rt-dev
# python: format
#
# Every test/fuzz/NAME_fuzzer.c is built with libFuzzer and the sanitizers, and
# fed for a while.  It says in lines of its header comment
#
#	sources:    what of the module it is built with
#	libraries:  what it is linked to, besides PostgreSQL's libpgcommon and libpgport
#	seeds:      a script beside it that fills the folder it is given with inputs
#
# and, where it needs functions of the server, brings them along.  What made it
# fail is shown in hexadecimal.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

# For each fuzzer, in seconds
limit=5
[[ $TEST_WHEN != all ]] || limit=180
number=0

# says FILE KEY: the words of such a line.
says() { sed -n "s/^ \* $2: *//p" "$1"; }

build()
{
	local file=$1 sources libraries
	read -ra sources < <(says "$file" sources)
	read -ra libraries < <(says "$file" libraries || true) || true
	"$(clang_command)" -g -O1 -std=gnu99 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=undefined -Isrc -isystem "$("$PG_CONFIG" --includedir-server)" \
		-o "$2" "$file" "${sources[@]}" \
		-L"$("$PG_CONFIG" --libdir)" -L"$("$PG_CONFIG" --pkglibdir)" -lpgcommon -lpgport \
		"${libraries[@]}"
}

seed()
{
	local script
	script=$(says "$1" seeds)
	mkdir -p "$2"
	[[ -z $script ]] || "$TEST_PYTHON/python" "test/fuzz/$script" "$2"
}

feed()
{
	(cd "$2" && ./fuzzer -max_total_time="$limit" -max_len=4096 -timeout=20 -rss_limit_mb=1024 \
		-artifact_prefix="$2/failed-" -print_final_stats=1 "$2/seeds")
}

# Programs that are linked to a downloaded server's libraries must not load
# them: the system's OpenSSL is the newer one.
unset LD_LIBRARY_PATH

cd "$TEST_ROOT"
for file in test/fuzz/*_fuzzer.c; do
	name=$(basename "$file" .c)
	folder=$TEST_FOLDER/$name
	log=$folder/log
	mkdir -p "$folder"
	number=$((number + 1))
	if build "$file" "$folder/fuzzer" >"$log" 2>&1 && seed "$file" "$folder/seeds" >>"$log" 2>&1 &&
		feed "$file" "$folder" >>"$log" 2>&1; then
		echo "ok $number - $name, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $limit s"
	else
		echo "not ok $number - $name"
		tail -n 60 "$log" | sed 's/^/# /'
		for input in "$folder"/failed-*; do
			[[ ! -e $input ]] || echo "# failed with $(od -An -v -tx1 "$input" | tr -d ' \n' | head -c 9000)"
		done
	fi
done
