#!/usr/bin/env bash
# Run the notebooks headless, in order (tiny trainings side by side): all of them, or those named here.
#   ./nbconvert_ci.sh                        tiny, on generated phantoms: minutes on two CPU cores
#   ./nbconvert_ci.sh notebooks/02*.ipynb    one of them
#   LITS_TINY=0 ./nbconvert_ci.sh            full size
# Each tenth of a training is told in a line, with its Dice and the time left.
# LITS_SOURCE, LITS_RAW, LITS_PREPARED, LITS_RUNS and LITS_DEVICE are obeyed (see docs/start.md).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$here/scripts/environment.sh"
activate_environment
install_requirements requirements.txt
export LITS_TINY="${LITS_TINY:-1}"
exec python "$here/scripts/execute_notebooks.py" "$@"
