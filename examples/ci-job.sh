#!/usr/bin/env bash
# A CI job on a machine whose GPUs others use, too: bash ci-job.sh [COMMAND...]
#
# It waits for a GPU, runs COMMAND in a box with the checkout as its folder, and ends with COMMAND's
# exit code; 125 is gpubox's own: no GPU within the time, no engine, no image. The box is gone then,
# the report stays. A job that is cancelled (SIGTERM) ends its box.
set -euo pipefail

report=${REPORT:-$PWD/report} # what the CI system is to keep
mkdir -p "$report"            # gpubox never makes a folder of the host
[ $# -gt 0 ] || set -- python -m pytest --junitxml=/report/junit.xml

exec gpubox run --rm \
    --gpus "${GPUS:-1}" --wait-for "${WAIT_FOR:-2h}" \
    --workspace . -v "$report:/report" \
    --user host \
    --label "ci.job=${CI_JOB_ID:-none}" \
    "${PROFILE:-pytorch}" "$@"
