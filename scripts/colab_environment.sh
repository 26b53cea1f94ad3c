#!/usr/bin/env bash
# Execute the notebooks in Colab's own versions (constraints-colab.txt, Python 3.13), opened as from their badges:
# in an empty folder, so that the first clones the project and the others find the clone.
#   scripts/colab_environment.sh             in .venv-colab, made if absent (a few minutes)
#   scripts/colab_environment.sh FOLDER      in the environment of that folder
# Python 3.13 is $PYTHON313, python3.13, or a 3.13 of pyenv; without one nothing is done, and that is no failure.
# What comes out lies in runs/colab/. LITS_TINY is obeyed (1 unless set).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$here/environment.sh"

find_python313() {
  local candidate
  for candidate in "${PYTHON313:-}" python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
      echo "$candidate"; return 0
    fi
  done
  return 1
}

# make_repository FOLDER: a repository that holds the working tree's module, in place of the published one.
make_repository() {
  mkdir -p "$1"
  cp -R "$project/lits_helpers" "$project/notebooks" "$1"
  git -C "$1" init --quiet
  git -C "$1" add .
  git -C "$1" -c user.name=ci -c user.email=ci@localhost -c commit.gpgsign=0 commit --quiet --message "What a clone finds"
}

# run_as_in_colab: execute the notebooks beside nothing but themselves.
run_as_in_colab() {
  local machine address notebook
  machine="$(mktemp -d)"
  trap "rm -rf '$machine'" EXIT
  make_repository "$machine/origin"
  mkdir "$machine/content"
  for notebook in "$project"/notebooks/*.ipynb; do  # published as scripts/set_repository.sh does it
    sed 's|OWNER/REPO|somebody/lits|g' "$notebook" > "$machine/content/$(basename "$notebook")"
  done
  address="$(grep -ohE 'REPOSITORY = ..https://[^"\\]+' "$machine"/content/01*.ipynb | grep -oE 'https.*')"
  rm -rf "$project/runs/colab"  # nothing of an earlier run may stand in for this one
  export LITS_RAW="$project/runs/colab/raw" LITS_PREPARED="$project/runs/colab/prepared"
  export LITS_RUNS="$project/runs/colab/runs" LITS_TINY="${LITS_TINY:-1}"
  PYDEVD_DISABLE_FILE_VALIDATION=1 GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$machine/origin.insteadOf" GIT_CONFIG_VALUE_0="$address" \
    python "$here/execute_notebooks.py" "$machine"/content/*.ipynb
}

if ! python313="$(find_python313)"; then
  echo "Skipped: the notebooks in Colab's versions need Python 3.13 (python3.13 on the PATH, or PYTHON313=...)."
  exit 0
fi
make_environment "$python313" "${1:-$project/.venv-colab}"
install_requirements requirements.txt -c "$project/constraints-colab.txt"
run_as_in_colab
