#!/usr/bin/env bash
# gpubox in two minutes: bash examples/quickstart.sh [--yes]
#
# With Docker and an NVIDIA GPU it starts the default profile on that GPU. On a bare Debian machine
# it starts a throwaway Docker Engine of its own, with SIMULATED GPUs and a stand-in CUDA image, and
# runs the same commands there. It leaves the packages that it names, and a folder .lab/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/lab/install.sh
. tests/lab/install.sh

venv=$PWD/.lab/gpubox

main() {
    case ${1-} in
    '' | --yes)
        if docker_with_gpu; then
            real
        else
            simulated "${1-}"
        fi
        ;;
    --inside) inside ;;
    *) fail "usage: bash examples/quickstart.sh [--yes]" ;;
    esac
}

docker_with_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU ' && docker version >/dev/null 2>&1
}

real() {
    say "Docker and a GPU are here: gpubox goes into .lab/gpubox, then the default profile starts"
    make_venv "$venv"
    PATH=$venv/bin:$PATH
    type_and_run gpubox run -- nvidia-smi -L
    next
}

simulated() {
    local other missing
    require_debian
    other=$(other_docker)
    if [ -n "$other" ]; then
        fail "this machine has $other and no GPU that answers: nothing is installed or started" \
            "here. Try it on a bare machine, or with a GPU"
    fi
    say "no Docker with an NVIDIA GPU here: this shows gpubox with SIMULATED GPUs and" \
        "a stand-in for the CUDA image"
    missing=$(missing_packages "${engine_packages[@]}" | paste -sd ' ')
    say "  packages to install: ${missing:-none}${missing:+ (no service is started now)}"
    say "  files to make: .lab/ in this folder; the Docker Engine it starts ends with it"
    agreed "${1-}" || fail "nothing was changed"
    install_packages "${engine_packages[@]}"
    make_venv "$venv"
    trap give_back EXIT
    as_root env PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m lab run -- \
        bash examples/quickstart.sh --inside
    next
}

# At a terminal a person is asked; a script goes on.
agreed() {
    local answer
    if [ "$1" = --yes ] || [ ! -t 0 ]; then
        return 0
    fi
    read -r -p "gpubox: go on? [y/N] " answer
    [[ $answer == [yY]* ]]
}

# Beside the throwaway engine: in an empty folder and an empty home.
inside() {
    local folder
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$folder'" EXIT
    mkdir "$folder/samples" "$folder/home"
    printf 'label,pixels\n7,000102\n' >"$folder/samples/train.csv"
    printf 'label,pixels\n3,030405\n' >"$folder/samples/test.csv"
    cd "$folder"
    export HOME=$folder/home PATH=$venv/bin:$PATH
    unset XDG_CONFIG_HOME NV_GPU
    type_and_run gpubox run cuda8-cudnn5 nvidia-smi -L
    type_and_run gpubox mount ./samples:/data cuda8-cudnn5 ls -l /data
}

type_and_run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

next() {
    cat <<END

Next, with Docker and an NVIDIA GPU:
    export PATH=$venv/bin:\$PATH
    gpubox run                 a shell in the default profile
    gpubox jupyter             Jupyter, and the URL that works
    gpubox profiles            what else there is
END
}

main "$@"
