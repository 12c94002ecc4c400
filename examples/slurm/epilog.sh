#!/bin/sh
# For the admins of a cluster whose jobs use gpubox. As root on each node, in slurm.conf:
#     Epilog=/etc/slurm/epilog.sh
# It removes what a job has left: a box whose gpubox was killed (scancel --signal=KILL, a closed
# terminal under srun, the out-of-memory killer) goes on, for the engine knows no jobs.

PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH # Slurm gives an epilog next to no environment
export PATH

[ -n "$SLURM_JOB_ID" ] || exit 0
docker ps --all --quiet --filter "label=gpubox.job=$SLURM_JOB_ID" |
    xargs --no-run-if-empty docker rm --force --volumes >/dev/null

exit 0 # an epilog that fails takes its node out of service
