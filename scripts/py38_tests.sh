#!/usr/bin/env bash
# The unit tests on Python 3.8 with the oldest allowed version of every dependency, in an environment of their own (.venv-py38).
# Arguments are those of pytest (default: tests). Left out: what needs torch, live services or today's gRPC (tests/services,
# tests/protocol/test_grpc_*.py), and FATE jobs.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
env="$root/.venv-py38"
pins="$root/requirements/py38-oldest.txt"
export PIP_DISABLE_PIP_VERSION_CHECK=1
cd "$root"

python=""
for candidate in "${PYTHON38:-}" python3.8 "$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python 2>/dev/null | tail -n 1)"; do
    [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null && python="$candidate" && break
done
if [ -z "$python" ]; then
    echo "test-py38 skipped: there is no Python 3.8 (set PYTHON38 to one)"
    exit 0
fi

want="$(cat "$pins" "${BASH_SOURCE[0]}" backend/native/*.cpp backend/native/*.h | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$env/.pins" 2>/dev/null || true)" != "$want" ]; then
    echo "making .venv-py38 with $python (a minute or two, once)"
    "$python" -m venv --clear "$env"
    "$env/bin/python" -m pip install -q "pip<24.1"
    "$env/bin/python" -m pip install -q --prefer-binary -r "$pins"
    "$env/bin/python" setup.py -q build_ext --inplace
    echo "$want" >"$env/.pins"
fi
export PYTHONPATH="$root/backend:$root"
exec "$env/bin/python" -m pytest -q -p no:cacheprovider -m "not fate and not slow" \
    --ignore tests/bench --ignore tests/services --ignore tests/protocol/test_grpc_transport.py --ignore tests/protocol/test_grpc_tls.py "${@:-tests}"
