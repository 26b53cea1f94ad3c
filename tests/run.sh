#!/usr/bin/env bash
# Run the tests, a process a core. Arguments go to pytest: tests/run.sh -n 0 -k metrics
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$here/scripts/environment.sh"
activate_environment
install_requirements requirements-dev.txt
cd "$here"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # the other cores have processes of their own
exec python -m pytest -n auto --dist loadfile "$@"
