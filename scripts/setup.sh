#!/bin/sh
# Have uv, and with it the project's Python packages. Prints the uv to use.
set -eu
own="${XDG_CACHE_HOME:-$HOME/.cache}/berth/uv"
if command -v uv >/dev/null; then
    uv=$(command -v uv)
else
    uv="$own/bin/uv"
    if [ ! -x "$uv" ]; then
        # Debian keeps venv in a package of its own, and its system Python takes no packages from pip.
        python3 -c 'import ensurepip' 2>/dev/null || {
            [ "$(id -u)" = 0 ] || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
            { apt-get update && apt-get install --yes --no-install-recommends python3-venv; } >&2
        }
        python3 -m venv "$own"
        "$own/bin/pip" install --quiet uv >&2
    fi
fi
"$uv" sync --frozen --quiet
echo "$uv"
