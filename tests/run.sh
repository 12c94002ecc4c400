#!/usr/bin/env bash
# All of gpubox's checks and tests, from a fresh clone on Debian: bash tests/run.sh [PYTEST ARGUMENT...]
# Runs beside another Docker Engine without touching it; what it makes stays under .lab/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/lab/install.sh
. tests/lab/install.sh

install_packages "${engine_packages[@]}" docker-registry apache2-utils openssl \
    podman catatonit tmux zsh fish chromium gcc libc6-dev gnupg mmdebstrap \
    slurmctld slurmd slurm-client
make_venv .lab/venv --group dev
bin=$PWD/.lab/venv/bin

"$bin/ruff" format --check --quiet .
"$bin/ruff" check --quiet .
"$bin/mypy" --no-error-summary

trap give_back EXIT
as_root env PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 "$bin/python" -m lab fetch
as_root env PYTHONDONTWRITEBYTECODE=1 "$bin/pytest" -n 2 "$@"
