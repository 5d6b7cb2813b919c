#!/usr/bin/env bash
# Adds the he-nn components to an existing FATE 2.2, or takes them out again.
#
#   bash he_nn_setup.sh [--python PYTHON] [--uninstall]
#
# PYTHON is the interpreter that FATE Flow runs in; without it, the one behind `fate_flow` on the PATH, or `python`.
# FATE finds the components through the package's entry points: nothing is registered and nothing needs a restart.
# FATE 1.x is not served by this version; the script says so and changes nothing.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python=""
uninstall=""
while [ $# -gt 0 ]; do
    case "$1" in
        --python) python="${2:?--python needs the path of an interpreter}"; shift 2 ;;
        --uninstall) uninstall=1; shift ;;
        -h|--help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "unknown option $1; see --help" >&2; exit 2 ;;
    esac
done

if [ -z "$python" ]; then
    if command -v fate_flow >/dev/null; then
        python="$(dirname "$(command -v fate_flow)")/python"
    else
        python="$(command -v python || command -v python3 || true)"
    fi
fi
[ -n "$python" ] && [ -x "$python" ] || { echo "no Python found: name FATE's own with --python" >&2; exit 1; }

version="$("$python" - <<'PY' 2>/dev/null || true
from importlib import metadata
print(metadata.version("fate_flow"))
PY
)"
case "$version" in
    2.*) ;;
    "")
        if [ -n "${FATE_PROJECT_BASE:-}" ] || "$python" -c 'import federatedml' 2>/dev/null; then
            echo "this looks like FATE 1.x, which this version of he-nn does not serve yet (FATE 2.2 it does); nothing was changed" >&2
        else
            echo "$python has no FATE Flow 2.x in it: name FATE's own interpreter with --python; nothing was changed" >&2
        fi
        exit 1 ;;
    *) echo "FATE Flow $version is not served; 2.2 is; nothing was changed" >&2; exit 1 ;;
esac

prefix="$("$python" -c 'import sys; print(sys.prefix)')"
record="$prefix/he_nn_setup.installed"
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ -n "$uninstall" ]; then
    if [ ! -f "$record" ]; then
        echo "this script has put nothing into $prefix; nothing was changed" >&2
        exit 1
    fi
    mapfile -t installed <"$record"
    "$python" -m pip uninstall --quiet --yes "${installed[@]}"
    rm -f "$record"
    echo "removed from $prefix: ${installed[*]}"
    exit 0
fi

# What he_backend needs and FATE does not bring, at versions that leave FATE's own pins as they are; what is there stays.
missing=()
while IFS= read -r pin; do
    name="${pin%%==*}"
    "$python" -c 'import sys; from importlib import metadata; metadata.version(sys.argv[1])' "$name" 2>/dev/null || missing+=("$pin")
done < <(sed -n '/^# What he_backend needs there/,$p' "$root/conf/fate-2.2-requirements.txt" | grep '==')

if [ ${#missing[@]} -gt 0 ]; then
    "$python" -m pip install --quiet --no-deps "${missing[@]}"
fi
"$python" -m pip install --quiet --no-deps --force-reinstall "$root"
{
    cat "$record" 2>/dev/null || true
    printf '%s\n' he-nn "${missing[@]%%==*}"
} | sed '/^$/d' | sort -u >"$record.new"
mv "$record.new" "$record"

found="$("$python" -W ignore -m fate.components component list)"
for component in he-nn-load he-nn-eval he-nn-inference; do
    case "$found" in
        *"$component"*) ;;
        *) echo "FATE does not find $component: run  $python -m fate.components component list  to see why" >&2; exit 1 ;;
    esac
done
echo "FATE $version in $prefix has he-nn-load, he-nn-eval and he-nn-inference now (take them out with --uninstall)"
