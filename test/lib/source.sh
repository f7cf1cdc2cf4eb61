# shellcheck shell=bash
#
# PostgreSQL 18's own source, and a server built from it with assertions.  It
# comes from Debian's archive, as a source package of a newer release; the
# machine's own package lists are neither used nor changed.

ASSERT_PACKAGES=(bison flex pkg-config bzip2 xz-utils libreadline-dev zlib1g-dev
	libicu-dev liblz4-dev libzstd-dev libxml2-dev valgrind)

# The name in the cache; another one where the build is another.
ASSERT_TREE=postgresql-18-assert-valgrind

# pg_source_dir 18: where the source lies; ensure_source has to come first.
# It has src/tools/pg_bsd_indent/pg_bsd_indent, built, and what else PostgreSQL
# checks itself with: src/tools/pgindent, src/tools/valgrind.supp,
# src/test/regress.
pg_source_dir() { echo "$(cache_folder)/postgresql-$1-source"; }

ensure_source()
{
	ensure_packages bzip2 xz-utils
	ensure_tree 18
	cache_make postgresql-18-source fill_source
}

ensure_assert_tree()
{
	ensure_packages "${ASSERT_PACKAGES[@]}"
	ensure_source
	cache_make "$ASSERT_TREE" fill_assert_tree
}

fill_source()
{
	local folder=$1 download
	download=$(mktemp -d)
	# shellcheck disable=SC2064  # the value of now
	trap "rm -rf '$download'" EXIT
	download_source "$download"
	tar -C "$folder" --strip-components 1 --no-same-owner \
		-xf "$download"/postgresql-*.orig.tar.*
	build_indent "$folder/src/tools/pg_bsd_indent"
}

# download_source FOLDER: 18's source package, or the system's version's where
# the release that has 18 is out of reach.
download_source()
{
	try_source_package "$1" forky postgresql-18 && return
	note "no source of PostgreSQL 18 to be had: taking the system's version"
	try_source_package "$1" "$(release)" "postgresql-$(system_major)"
}

try_source_package()
{
	local folder=$1 suite=$2 package=$3 mirror
	mirror=$(system_mirror)
	[[ -n $mirror ]] || return 1
	private_apt "$folder" "deb-src $mirror $suite main"
	(
		cd "$folder" || exit
		export APT_CONFIG=$folder/apt.conf
		quietly "$folder/apt.log" apt-get update -qq &&
			quietly "$folder/apt.log" apt-get source -qq --download-only "$package"
	)
}

# The mirror that this machine has its own release's packages from.
system_mirror()
{
	# shellcheck disable=SC2016  # it is apt that expands
	apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
		awk -v release="$(release)" '$1 == release { print $2; exit }'
}

# private_apt FOLDER SOURCE: apt's settings for package lists in FOLDER.  A
# release that is no longer updated is as good a source as ever: its lists
# are still signed.
private_apt()
{
	local folder=$1
	mkdir -p "$folder"/state/lists/partial "$folder"/cache/archives/partial
	echo "$2" >"$folder/sources.list"
	cat >"$folder/apt.conf" <<-END
		Dir::Etc::sourcelist "$folder/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State "$folder/state";
		Dir::State::status "/var/lib/dpkg/status";
		Dir::Cache "$folder/cache";
		Acquire::Check-Valid-Until "false";
		APT::Sandbox::User "";
	END
}

# PostgreSQL's indent, straight from its sources: a whole configured tree just
# for it would take minutes.
build_indent()
{
	local tree
	tree=$(cache_folder)/postgresql-${RELEASE[18]}
	[[ -d $1 ]] || return 0
	gcc -O1 -w -I"$tree/include/server" -o "$1/pg_bsd_indent" "$1"/*.c \
		-L"$tree/lib" -lpgcommon -lpgport -lm
}

# With assertions, and telling valgrind about its memory contexts, where
# valgrind runs it.  The prefix has "pgsql" in it, or else "postgresql" would be added to the
# paths below it; the tree finds its parts from where it lies.
fill_assert_tree()
{
	local folder=$1 build
	build=$(mktemp -d)
	# shellcheck disable=SC2064  # the value of now
	trap "rm -rf '$build'" EXIT
	cd "$build" || exit
	quietly "$build/log" "$(pg_source_dir 18)/configure" --prefix=/pgsql --disable-rpath \
		--enable-cassert --enable-debug --enable-tap-tests --with-openssl --with-icu \
		--with-lz4 --with-zstd --with-libxml CFLAGS='-O1 -g' CPPFLAGS=-DUSE_VALGRIND
	quietly "$build/log" make -s -j"$(nproc)" world-bin
	quietly "$build/log" make -s install-world-bin DESTDIR="$build/root"
	cp -R "$build/root/pgsql/." "$folder"
	# The core regression suite's own library, for those who run that suite.
	cp src/test/regress/regress.so "$folder/lib/pgxs/src/test/regress"
}
