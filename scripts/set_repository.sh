#!/usr/bin/env bash
# Write the repository's address into badges, bootstrap cells, README and citation. Once, after publishing:
#   scripts/set_repository.sh somebody/lits
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
placeholder='OWNER/REPO'
name="${1:-}"
if ! printf '%s\n' "$name" | grep -qxE '[A-Za-z0-9-]+/[A-Za-z0-9._-]+' || [ "$name" = "$placeholder" ]; then
  echo "usage: scripts/set_repository.sh OWNER/REPO, as in https://github.com/OWNER/REPO; got '$name'" >&2
  exit 2
fi
files="$(grep -rIlF "$placeholder" --exclude-dir='.[!.]*' --exclude-dir=data --exclude-dir=runs --exclude-dir=tests \
  --exclude-dir=scripts . || true)"
if [ -z "$files" ]; then
  echo "$placeholder is written nowhere any more: the address was set before." >&2
  exit 1
fi
printf '%s\n' "$files" | while IFS= read -r file; do
  content="$(sed "s|$placeholder|$name|g" "$file"; echo .)"  # the dot keeps the last line's end
  printf '%s' "${content%.}" > "$file"
  echo "$file"
done
