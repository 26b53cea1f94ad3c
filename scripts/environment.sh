# Sourced by nbconvert_ci.sh, tests/run.sh and .ci/run: finds or makes the Python environment and installs into it.
# Uses the active environment (venv or conda) where there is one, else makes .venv in the project's folder.
# Afterwards `python` is the environment's.

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return 0
    fi
  done
  echo "No Python >= 3.11 found; install python3 and python3-venv." >&2
  return 1
}

activate_environment() {
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    if [ ! -x "$project/.venv/bin/python" ]; then
      local base; base="$(find_python)" || return 1
      echo "Making $project/.venv"
      "$base" -m venv "$project/.venv" ||
        { rm -rf "$project/.venv"; echo "Making .venv failed; on Debian: apt-get install python3-venv" >&2; return 1; }
    fi
    . "$project/.venv/bin/activate"
  fi
  python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "The active environment has $(python -V 2>&1); Python >= 3.11 is needed." >&2; return 1; }
}

# install_requirements FILE: once for each content of the requirement files.
install_requirements() {
  local list="$project/$1" stamp wanted
  wanted="$(cat "$project"/requirements*.txt | cksum) $1"
  stamp="$(python -c 'import sys; print(sys.prefix)')/.lits-$(basename "$1" .txt)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
  echo "Installing $1 (torch is large: a few minutes)"
  local filtered="$project/.requirements.install.txt"
  { cat "$project/requirements.txt"; [ "$1" = requirements.txt ] || grep -v '^-r' "$list"; } > "$filtered"
  # opencv-python needs libGL and libglib; where the machine lacks them the headless wheel is the same library.
  if ! python -c 'import ctypes; ctypes.CDLL("libGL.so.1"); ctypes.CDLL("libgthread-2.0.so.0")' 2>/dev/null; then
    echo "No libGL on this machine: taking opencv-python-headless in place of opencv-python"
    sed -i 's/^opencv-python\b/opencv-python-headless/' "$filtered"
  fi
  python -m pip install --quiet --disable-pip-version-check -r "$filtered" || { rm -f "$filtered"; return 1; }
  rm -f "$filtered"
  echo "$wanted" > "$stamp"
}
