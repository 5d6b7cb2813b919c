#!/usr/bin/env bash
# Makes .venv-fate at the repository root: FATE 2.2, he_backend's run-time needs, and this project, editable.
# Quick when there is nothing to do: one stamp covers the pinned packages, another the project's own metadata.
#
#   scripts/fate_env.sh            PYTHON=python3.11 scripts/fate_env.sh
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
env="$root/.venv-fate"
pins="$root/conf/fate-2.2-requirements.txt"
python="${PYTHON:-python3}"
export PIP_DISABLE_PIP_VERSION_CHECK=1

digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
current() { [ -f "$2" ] && [ "$(cat "$2")" = "$1" ]; }

"$python" - <<'PY' || exit 1
import sys
if sys.version_info[:2] != (3, 11):
    sys.exit("FATE 2.2 needs Python 3.11 (this is %d.%d): set PYTHON to one" % sys.version_info[:2])
PY

want="$(digest "$pins" "${BASH_SOURCE[0]}")"
if ! current "$want" "$env/.pins"; then
    echo "FATE 2.2 environment: installing $(grep -c '==' "$pins") packages into .venv-fate (one to five minutes, once)" >&2
    [ -x "$env/bin/python" ] || "$python" -m venv "$env"
    # torch first: it is the largest, and the likeliest to be refused by a slow or full machine.
    "$env/bin/pip" install --quiet --no-deps --no-compile "$(grep '^torch==' "$pins")"
    "$env/bin/pip" install --quiet --no-deps --no-compile -r "$pins"
    # A CUDA build of torch cannot be imported without its libraries, which --no-deps left out.
    "$env/bin/python" -c 'import torch' 2>/dev/null ||
        "$env/bin/pip" install --quiet --no-compile --constraint "$pins" "$(grep '^torch==' "$pins")"
    # Every FATE task starts five Python processes for each party: they should find bytecode.
    "$env/bin/python" -m compileall -q -j 2 "$env/lib" >/dev/null 2>&1 || true
    echo "$want" >"$env/.pins"
fi

metadata=()
for file in setup.py setup.cfg pyproject.toml; do
    [ -f "$root/$file" ] && metadata+=("$root/$file")
done
while IFS= read -r file; do metadata+=("$file"); done < <(
    find "$root/backend/native" -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.hpp' -o -name '*.py' \) 2>/dev/null | sort)
want="$want $(digest "${metadata[@]}")"
if ! current "$want" "$env/.project"; then
    "$env/bin/pip" install --quiet --no-deps --no-build-isolation --editable "$root"
    echo "$want" >"$env/.project"
fi
