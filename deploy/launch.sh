#!/bin/sh
# A whole run on this machine: one coordinator, N rollout and M learner processes, watched and restarted.
#   sh deploy/launch.sh CONFIG [ROLLOUTS [LEARNERS]] [further `troupe run` arguments]
# Or only workers, for a coordinator elsewhere:
#   sh deploy/launch.sh HOST:PORT [ROLLOUTS [LEARNERS]] --token-file FILE --tls-ca FILE [further `troupe launch` arguments]
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if [ $# -lt 1 ] || [ "$1" = "-h" ] || [ "$1" = "--help" ]; then
  sed -n '2,5s/^# *//p' "$0" >&2
  exit 2
fi
target=$1
shift

is_count() { case "${1:-}" in "" | *[!0-9]*) return 1 ;; esac; }
rollouts=2
learners=2
if is_count "${1:-}"; then rollouts=$1; shift; fi
if is_count "${1:-}"; then learners=$1; shift; fi

if [ ! -d "$here/../node_modules" ]; then
  echo "dependencies are missing: run npm ci in $(cd "$here/.." && pwd) first" >&2
  exit 2
fi
troupe="$here/../bin/troupe.mjs"
case $target in
  *:[0-9]*) set -- launch --coordinator "$target" --rollouts "$rollouts" --learners "$learners" "$@" ;;
  *) set -- run "$target" --rollouts "$rollouts" --learners "$learners" "$@" ;;
esac
exec node "$troupe" "$@"
