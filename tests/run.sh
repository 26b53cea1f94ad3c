#!/usr/bin/env bash
# Run the tests. Arguments go to pytest: tests/run.sh -k metrics
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$here/scripts/environment.sh"
activate_environment
install_requirements requirements-dev.txt
cd "$here"
exec python -m pytest "$@"
