#!/bin/sh
# Starts the Compose fleet: makes the join tokens on first use, passes your user id, builds, scales.
#   sh deploy/compose.sh [ROLLOUTS [LEARNERS]] [further docker compose up arguments]
#   COMPOSE_PROFILES=monitoring sh deploy/compose.sh 4 2     adds Prometheus (:9090) and Grafana (:3000)
set -eu
here=$(cd "$(dirname "$0")" && pwd)

is_count() { case "${1:-}" in "" | *[!0-9]*) return 1 ;; esac; }
rollouts=2
learners=2
if is_count "${1:-}"; then rollouts=$1; shift; fi
if is_count "${1:-}"; then learners=$1; shift; fi

# One for each role, so that a worker's container holds only its own; the coordinator has all of them.
secrets="$here/secrets"
if [ ! -s "$secrets/tokens" ]; then
  mkdir -p "$secrets"
  (
    umask 077
    for role in rollout learner control; do
      echo "$role $(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" > "$secrets/$role-token"
    done
    cat "$secrets/rollout-token" "$secrets/learner-token" "$secrets/control-token" > "$secrets/tokens"
  )
  echo "made join tokens in $secrets"
fi

TROUPE_UID=$(id -u)
export TROUPE_UID
exec docker compose -f "$here/compose.yaml" up --build \
  --scale "rollout=$rollouts" --scale "learner=$learners" "$@"
