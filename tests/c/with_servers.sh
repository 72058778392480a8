#!/bin/sh
# with_servers.sh COMMAND...: runs it with the Redis servers that the environment names (tests/faults/README.md), or else with a standard set of its own.
if [ -n "${CF_TEST_REDIS-}" ]; then exec "$@"; fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=$here/../../.venv/bin/python
[ -x "$python" ] || python=python3
folder=$(mktemp -d /tmp/cf-c.XXXXXX) || exit 1
trap 'rm -rf "$folder"' EXIT
"$python" "$here/../faults/servers.py" run --dir "$folder" -- "$@"
