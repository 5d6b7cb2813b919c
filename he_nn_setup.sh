#!/usr/bin/env bash
# Adds the he-nn components to an existing FATE (1.9 to 1.11, or 2.2), or takes them out again.
#
#   bash he_nn_setup.sh [--dry-run | --check | --uninstall] [--base FOLDER] [--python PYTHON] [--provider [--flow HOST:PORT]] [--board FOLDER]
#
# FATE 1.x is found by FATE_PROJECT_BASE (or --base) or in the usual places, and its Python by bin/init_env.sh; FATE 2.2 by `fate_flow` on
# the PATH. PYTHON is the interpreter that FATE runs in, where it is another; with FATE Flow 2.x in it and no --base it is taken as FATE 2.2,
# whatever FATE_PROJECT_BASE says. --dry-run says what would change; --check tries an encrypted inference; --provider (1.x) registers a
# component provider with a running FATE Flow instead of placing a file among FATE's components; --board (2.x) gives FATE-Board the
# descriptions without which it draws no job with these components.
# What the script does stands in scripts/fate_setup.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
given=""
previous=""
for argument in "$@"; do
    [ "$previous" = "--python" ] && given="$argument"
    previous="$argument"
done

# Any Python of 3.8 or newer runs the script; it looks for FATE's own by itself.
for candidate in "$given" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" python3 python "${FATE_PROJECT_BASE:-/nowhere}/env/python/venv/bin/python"; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        # Not by cd and -m: folders that are named are relative to where the user is.
        exec "$candidate" -B -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from fate_setup.__main__ import main; sys.exit(main())' \
            "$root/scripts" "$@"
    fi
done
echo "he_nn_setup: no Python of 3.8 or newer was found: name FATE's own with --python" >&2
exit 1
