# shellcheck shell=bash
#
# Installing what is missing, by the machine's own package manager and pip.
# Nothing is asked of the network, and nothing is printed, when all is there.

# Where downloaded and built things stay from one run to the next.  Every
# folder in it is complete or absent: it is made under another name and
# renamed when finished (see cache_make).
cache_folder()
{
	local folder=${ENVELOPE_TEST_CACHE:-/var/cache/envelope}
	# What root has made is good for everybody; who is not root and finds
	# nothing keeps a cache at home.
	if [[ -z ${ENVELOPE_TEST_CACHE:-} && ! -d $folder ]] && ! is_root; then
		folder=${XDG_CACHE_HOME:-$HOME/.cache}/envelope
	fi
	echo "$folder"
}

# The release's code name, which decides the names of a few packages.
release() { (. /etc/os-release && echo "${VERSION_CODENAME:-unknown}"); }

# The major version of PostgreSQL that the system's own packages bring, which
# are the ones most users of that system have: it is tested instead of a
# downloaded build, and its Perl modules serve the TAP tests of all versions.
system_major()
{
	case $(release) in
		trixie) echo 17 ;;
		noble) echo 16 ;;
		*) echo 15 ;;
	esac
}

base_packages()
{
	local major
	major=$(system_major)
	echo gcc make perl libc6-dev libssl-dev libcurl4-openssl-dev libjansson-dev \
		"postgresql-$major" "postgresql-server-dev-$major" libipc-run-perl \
		python3 python3-venv git util-linux
	if [[ $(release) == bookworm ]]; then
		echo clang-14
	else
		echo clang
	fi
}

# The name by which the C compiler clang is called here.
clang_command() { command -v clang-14 || command -v clang; }

# ensure_packages [NAME...]: what building and testing need, and NAMEs too.
ensure_packages()
{
	local missing
	# shellcheck disable=SC2046  # a list of words
	missing=$(missing_packages $(base_packages) "$@")
	[[ -n $missing ]] || return 0
	say "installing $(echo "$missing" | paste -sd ' ')"
	local log
	log=$(mktemp)
	# One source of packages that is out of order need not matter.
	quietly "$log" as_root apt-get update -qq -o DPkg::Lock::Timeout=600 ||
		note "going on with the package lists that are here"
	quietly "$log" as_root bash "$ENVELOPE_ROOT/test/lib/common.sh" \
		install_packages "$missing" || die "installing packages failed"
	rm -f "$log"
}

missing_packages()
{
	local name
	for name in "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] ||
			echo "$name"
	done
}

# install_packages "NAME...": run as root.
install_packages()
{
	if [[ $1 == *postgresql-* ]]; then
		apt_install postgresql-common
		make_no_cluster
	fi
	apt_install "$1"
}

# apt_install "NAME...": run as root.
apt_install()
{
	# shellcheck disable=SC2086  # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		-o DPkg::Lock::Timeout=600 --no-install-recommends $1
}

# Until this shell ends, a server's package makes no cluster and starts none
# when it is installed.  It reads that wish from a configuration file, which
# is then put back as it was.
make_no_cluster()
{
	local conf=/etc/postgresql-common/createcluster.conf saved
	saved=$(mktemp)
	cp -p "$conf" "$saved"
	# shellcheck disable=SC2064  # the values of now
	trap "cp -p '$saved' '$conf'; rm -f '$saved'" EXIT
	echo 'create_main_cluster = false' >>"$conf"
}

# cache_make NAME FUNCTION [ARG...]: see to it that the cache has the folder
# NAME.  Where it is absent, FUNCTION FOLDER ARG... fills a folder that then
# takes the name, so that what was interrupted is never taken for complete.
# Runs at the same time wait for each other.
cache_make()
{
	local name=$1 cache folder
	shift
	cache=$(cache_folder)
	folder=$cache/$name
	[[ ! -e $folder/.complete ]] || return 0
	mkdir -p "$cache"
	(
		flock 9
		[[ ! -e $folder/.complete ]] || exit 0
		say "making $folder"
		rm -rf "$folder" "$cache/.making-$name"
		mkdir "$cache/.making-$name"
		in_new_shell "$1" "$cache/.making-$name" "${@:2}" || exit
		touch "$cache/.making-$name/.complete"
		mv "$cache/.making-$name" "$folder"
	) 9>"$cache/.lock-$name"
}

# python_env NAME: a virtual environment in the cache with the packages that
# test/lib/python/NAME.txt lists.  The system's own Python makes it, as any
# other one may be closed to the tests' user.
python_env() { cache_make "$(basename "$(python_env_path "$1")")" fill_python_env "$1"; }

# Its path.  The name carries what was asked for, so that a change of the list
# makes a new one.
python_env_path()
{
	echo "$(cache_folder)/python-$1-$(cksum <"$(python_packages "$1")" | cut -d ' ' -f 1)"
}

python_packages() { echo "$ENVELOPE_ROOT/test/lib/python/$1.txt"; }

fill_python_env()
{
	local folder=$1
	/usr/bin/python3 -m venv "$folder"
	quietly "$folder/pip.log" "$folder/bin/python" -m pip install -q \
		--disable-pip-version-check -r "$(python_packages "$2")"
	# Scripts carry the path they were made under; the folder is renamed.
	grep -rlIF "$folder" "$folder/bin" "$folder/pyvenv.cfg" |
		xargs -r sed -i "s|$folder|${folder/.making-/}|g"
}

# node_env NAME: packages of Node in the cache, as test/lib/node/NAME.json asks for
# them, in a folder node_modules; maven_env NAME: Java's libraries, as
# test/lib/maven/NAME.xml asks for them.
node_env() { cache_make "$(basename "$(node_env_path "$1")")" fill_node_env "$1"; }
maven_env() { cache_make "$(basename "$(maven_env_path "$1")")" fill_maven_env "$1"; }

node_env_path() { echo "$(cache_folder)/node-$1-$(cksum <"$(node_packages "$1")" | cut -d ' ' -f 1)"; }
maven_env_path() { echo "$(cache_folder)/maven-$1-$(cksum <"$(maven_packages "$1")" | cut -d ' ' -f 1)"; }

node_packages() { echo "$ENVELOPE_ROOT/test/lib/node/$1.json"; }
maven_packages() { echo "$ENVELOPE_ROOT/test/lib/maven/$1.xml"; }

# Some packages of nodejs bring npm, and will have no other beside it.
fill_node_env()
{
	local folder=$1
	command -v npm >/dev/null || ensure_packages npm
	cp "$(node_packages "$2")" "$folder/package.json"
	quietly "$folder/npm.log" npm install --prefix "$folder" --cache "$folder/.npm" \
		--no-audit --no-fund --no-package-lock --loglevel=error
	rm -rf "$folder/.npm"
}

fill_maven_env()
{
	local folder=$1
	ensure_packages maven
	quietly "$folder/mvn.log" mvn -B -ntp -f "$(maven_packages "$2")" -Dmaven.repo.local="$folder/.m2" \
		org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory="$folder"
	rm -rf "$folder/.m2"
}

# A script of tests says in comment lines of its own what it needs:
#   # packages: NAME...   from the system's package manager; MAJOR in a name is
#                         the version of PostgreSQL that the system brings
#   # python: NAME        a virtual environment, see python_env
#   # node: NAME, # maven: NAME
#                         libraries for Node and Java, see node_env
#   # release: 15         the downloaded build of this major, see ensure_release
#   # source: 18          PostgreSQL's source, see source.sh
# script_says SCRIPT KEY prints the words of such a line.
script_says() { sed -n "s/^# $2: *//p" "$1" | head -n 1; }

# script_needs SCRIPT: install what it needs.
script_needs()
{
	local words
	words=$(script_says "$1" packages)
	words=${words//MAJOR/$(system_major)}
	# shellcheck disable=SC2086  # a list of words
	[[ -z $words ]] || ensure_packages $words
	words=$(script_says "$1" python)
	[[ -z $words ]] || python_env "$words"
	words=$(script_says "$1" node)
	[[ -z $words ]] || node_env "$words"
	words=$(script_says "$1" maven)
	[[ -z $words ]] || maven_env "$words"
	words=$(script_says "$1" release)
	[[ -z $words ]] || ensure_release "$words"
	[[ -z $(script_says "$1" source) ]] || ensure_source
}

# script_python SCRIPT: where the programs of its virtual environment are.
script_python()
{
	local name
	name=$(script_says "$1" python)
	[[ -z $name ]] || echo "$(python_env_path "$name")/bin"
}
