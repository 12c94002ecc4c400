# shellcheck shell=bash
# What the lab needs of a machine, for tests/run.sh and examples/quickstart.sh, which source this.
# Packages come from the distribution, are installed only where missing, and start no service.

# shellcheck disable=SC2034 # for those who source this
engine_packages=(docker.io docker-cli iptables iproute2 procps busybox-static python3 python3-venv)

say() { printf 'gpubox: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -E "$@"
    else
        fail "this needs root and there is no sudo: run it as root"
    fi
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The package of another Docker than the distribution's, if this machine has one.
other_docker() {
    local package
    for package in docker-ce docker-ce-cli docker-ee docker-desktop moby-engine moby-cli podman-docker; do
        if installed "$package"; then
            echo "$package"
            return
        fi
    done
    if [ -d /snap/docker ]; then
        echo "the docker snap"
    elif ! installed docker.io && [ -n "$(system_program dockerd)" ]; then
        system_program dockerd
    fi
}

system_program() {
    PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin type -P "$1" || true
}

# Those of the packages named that this machine has not, and may have.
missing_packages() {
    local package other
    other=$(other_docker)
    for package in "$@"; do
        case $package in
        docker.io) [ -z "$other" ] || continue ;;
        docker-cli) [ -z "$other" ] || continue; cli_is_apart || continue ;;
        busybox-static) ! installed busybox || continue ;; # it would replace that one: see below
        esac
        installed "$package" || echo "$package"
    done
}

# From Debian 13 on the docker program has a package of its own; before, there is no such package.
cli_is_apart() (
    . /etc/os-release
    [ "$ID" = debian ] && [ "${VERSION_ID:-99}" -ge 13 ]
)

require_debian() {
    type -P apt-get >/dev/null ||
        fail "this installs with apt-get: it needs Debian, or a distribution made from it"
}

install_packages() {
    local missing other
    require_debian
    other=$(other_docker)
    if [ -n "$other" ] && [ -z "$(system_program dockerd)" ]; then
        fail "this machine has $other and no dockerd: docker.io is not installed beside it." \
            "Use another machine, or remove $other"
    fi
    mapfile -t missing < <(missing_packages "$@")
    if [ "${#missing[@]}" -gt 0 ]; then
        say "installing ${missing[*]}"
        quietly as_root apt-get -o DPkg::Lock::Timeout=120 -qq update
        without_services quietly as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
            apt-get -o DPkg::Lock::Timeout=120 -qq -y --no-install-recommends install "${missing[@]}"
    fi
    unpack_busybox
}

# The static busybox would replace the machine's own: it is unpacked beside it instead.
unpack_busybox() {
    if installed busybox && [ ! -d .lab/busybox ]; then
        mkdir -p .lab/fetch
        (cd .lab/fetch && quietly apt-get -qq download busybox-static)
        dpkg-deb --extract .lab/fetch/busybox-static_*.deb .lab/busybox
        rm -r .lab/fetch
    fi
}

# Its output is seen only if it fails.
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output" >&2
        fail "failed: $*"
    fi
}

# Packages ask policy-rc.d before they start a service; a machine's own is left as it is.
without_services() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    "$@"
)

# The distribution's Python first: other users of this machine can run it too.
find_python() {
    local python
    for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "no Python from 3.10 on with the venv module: apt-get install python3-venv"
}

# make_venv FOLDER [PIP ARGUMENT...]: gpubox in it; made anew only if pyproject.toml has changed.
make_venv() {
    local folder=$1 python stamp
    shift
    python=$(find_python)
    stamp="$PWD $("$python" --version) $* $(sha256sum <pyproject.toml)"
    if [ "$(cat "$folder/made-from" 2>/dev/null)" != "$stamp" ]; then
        say "making $folder with $python"
        rm -rf "$folder"
        mkdir -p .lab
        quietly "$python" -m venv "$folder"
        quietly "$folder/bin/python" -m pip install --quiet --upgrade pip
        quietly "$folder/bin/python" -m pip install --quiet --editable . "$@"
        echo "$stamp" >"$folder/made-from"
    fi
}

# What was made as root in here becomes the caller's again.
give_back() {
    local made
    [ "$(id -u)" != 0 ] || return 0
    for made in .lab .hypothesis .pytest_cache; do
        [ ! -e "$made" ] || sudo chown -R "$(id -u):$(id -g)" "$made"
    done
}
