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

# make_environment PYTHON FOLDER: make it if absent, and activate it.
make_environment() {
  if [ ! -x "$2/bin/python" ]; then
    echo "Making $2"
    "$1" -m venv "$2" ||
      { rm -rf "$2"; echo "Making $2 failed; on Debian: apt-get install python3-venv" >&2; return 1; }
  fi
  . "$2/bin/activate"
}

activate_environment() {
  # Waiting threads soon sleep (see lits_helpers/__init__.py), also where a script imports torch first.
  if [ -z "${OMP_WAIT_POLICY:-}${GOMP_SPINCOUNT:-}${KMP_BLOCKTIME:-}" ]; then export GOMP_SPINCOUNT=1000; fi
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    local base; base="$(find_python)" || return 1
    make_environment "$base" "$project/.venv" || return 1
  fi
  python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "The active environment has $(python -V 2>&1); Python >= 3.11 is needed: deactivate it." >&2; return 1; }
}

# wanted_packages FILE: the requirements as this machine can have them.
wanted_packages() {
  # An OpenCV that imports is kept, whatever its wheel is called: two of them in one folder break each other.
  # opencv-python needs libGL and libglib; where the machine lacks them the headless wheel is the same library.
  local opencv='opencv-python'
  if python -c 'import cv2, sys; sys.exit(tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 10))' 2>/dev/null; then
    opencv='#opencv-python'
  elif ! python -c 'import ctypes; ctypes.CDLL("libGL.so.1"); ctypes.CDLL("libgthread-2.0.so.0")' 2>/dev/null; then
    echo "No libGL on this machine: taking opencv-python-headless in place of opencv-python" >&2
    opencv='opencv-python-headless'
  fi
  { cat "$project/requirements.txt"; [ "$1" = requirements.txt ] || cat "$project/$1"; } |
    sed -e '/^-r/d' -e "s/^opencv-python>/$opencv>/"
}

# install_requirements FILE [PIP OPTION...]: once for each content of the requirement files.
install_requirements() {
  local file="$1" stamp wanted list
  wanted="$(cat "$project"/requirements*.txt "$project"/constraints*.txt | cksum) $*"
  stamp="$(python -c 'import sys; print(sys.prefix)')/.lits-$(basename "$file" .txt)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
  shift
  python -m pip --version > /dev/null 2>&1 || python -m ensurepip ||
    { echo "The active environment has no pip: install it, or deactivate the environment." >&2; return 1; }
  echo "Installing $file (torch is large: a few minutes)"
  list="$(mktemp)"
  wanted_packages "$file" > "$list"
  python -m pip install --quiet --disable-pip-version-check -r "$list" "$@" || { rm -f "$list"; return 1; }
  rm -f "$list"
  echo "$wanted" > "$stamp" 2>/dev/null || true  # an environment of somebody else: pip looks again next time
}
