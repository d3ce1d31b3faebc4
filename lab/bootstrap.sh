#!/usr/bin/env bash
# Brings a Debian machine and this clone to where the lab and the tests run: Debian packages, `.venv`, npm packages.
# Idempotent: what is there is skipped. Only the packages need root. RabbitMQ only with BYOC_LAB_BROKER=core.rabbitmq,
# Slurm's accounting only with BYOC_LAB_ACCOUNTING=slurmdbd, a browser only with BYOC_LAB_BROWSER=chromium (for the tests).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

# Runs a step silently; its output is shown only if it fails.
quietly() {
    local log
    log="$(mktemp)"
    if ! "$@" >"$log" 2>&1; then
        tail -n 100 "$log" >&2
        rm -f "$log"
        fail "failed: $*"
    fi
    rm -f "$log"
}

# The first Python >= 3.11 that can create virtual environments; its own path, also from within an active one.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        "$candidate" -c '
import ensurepip, os, sys, venv
if sys.version_info < (3, 11): sys.exit(1)
print(os.path.realpath(sys._base_executable), "%d.%d.%d" % sys.version_info[:3])' 2>/dev/null && return
    done
    return 1
}

# 18.19 or newer, but neither 19 nor 20 before 20.6: the lab's Convex server resolves its modules by a hook.
node_is_recent() { node -e 'process.exit(typeof require("node:module").register === "function" ? 0 : 1)' 2>/dev/null; }

missing_packages() {
    local pair accounting=()
    [[ "${BYOC_LAB_ACCOUNTING:-}" != slurmdbd ]] || accounting=(slurmdbd:slurmdbd mariadbd:mariadb-server)
    for pair in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge bwrap:bubblewrap \
        podman:podman runc:runc catatonit:catatonit newuidmap:uidmap ch-run:charliecloud-runtime mksquashfs:squashfs-tools \
        docker-registry:docker-registry ip:iproute2 iptables:iptables nginx:nginx-light git:git make:make ps:procps npm:npm "${accounting[@]}"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo postgresql
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    [[ "${BYOC_LAB_BROWSER:-}" != chromium ]] || command -v chromium >/dev/null || echo chromium
    [[ "${BYOC_LAB_BROKER:-}" != core.rabbitmq || -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || echo rabbitmq-server
    node_is_recent || echo nodejs
    find_python >/dev/null || printf 'python3\npython3-venv\n'
}

# As root. Nothing that is installed here may start a service or create a database cluster, so for the duration of
# the installation two switches of Debian's say so; a switch that was there before is left alone.
install_packages() {
    local services=/usr/sbin/policy-rc.d clusters=/etc/postgresql-common/createcluster.d/aiida-byoc.conf
    switches=()
    trap 'rm -f "${switches[@]}"' EXIT
    if [[ ! -e "$services" ]]; then
        switches+=("$services")
        printf '#!/bin/sh\nexit 101\n' >"$services"
        chmod 755 "$services"
    fi
    if [[ " $* " == *" postgresql "* && ! -e "$clusters" ]]; then
        switches+=("$clusters")
        mkdir -p "${clusters%/*}"
        echo 'create_main_cluster = false' >"$clusters"
    fi
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -o DPkg::Lock::Timeout=300 update
    quietly apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

ensure_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    if [[ ${#packages[@]} -eq 0 ]]; then
        say "Debian packages: present"
        return
    fi
    command -v apt-get >/dev/null || fail "this machine has no apt-get; install what Debian calls: ${packages[*]}"
    local as_root=()
    if [[ $EUID -ne 0 ]]; then
        sudo -n true 2>/dev/null ||
            fail "packages are missing and need root: apt-get install -y --no-install-recommends ${packages[*]}"
        as_root=(sudo -n --preserve-env=http_proxy,https_proxy,no_proxy,BYOC_LAB_BROKER,BYOC_LAB_ACCOUNTING,BYOC_LAB_BROWSER)
    fi
    say "Debian packages: installing ${packages[*]}"
    "${as_root[@]}" bash "$root/lab/bootstrap.sh" install "${packages[@]}"
    hash -r
    mapfile -t packages < <(missing_packages)
    [[ ${#packages[@]} -eq 0 ]] || fail "still missing, or too old, after the installation: ${packages[*]}"
}

digest() { sha256sum "$@" | sha256sum | cut -d' ' -f1; }
stamped() { [[ -f "$1" && "$(<"$1")" == "$2" ]]; }

# `.venv` is rebuilt when the lock file or the interpreter changes, the project's own metadata alone when only that does.
ensure_venv() {
    local python version lock project
    read -r python version < <(find_python)
    lock="$version $python $(digest requirements.lock)"
    project="$lock $(digest pyproject.toml setup.cfg)"
    if stamped .venv/.project "$project"; then
        say "virtual environment: present (Python $version)"
        return
    fi
    if stamped .venv/.lock "$lock"; then
        say "virtual environment: installing the project again"
    else
        say "virtual environment: installing requirements.lock (Python $version)"
        rm -rf .venv
        quietly "$python" -m venv .venv
        quietly .venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
        printf '%s' "$lock" >.venv/.lock
    fi
    quietly .venv/bin/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e .
    printf '%s' "$project" >.venv/.project
}

ensure_npm() {
    local inputs
    inputs="$(node --version) $(digest package.json package-lock.json)"
    if stamped node_modules/.inputs "$inputs"; then
        say "npm packages: present (Node $(node --version))"
        return
    fi
    say "npm packages: installing package-lock.json (Node $(node --version))"
    quietly npm ci --no-audit --no-fund --no-update-notifier
    printf '%s' "$inputs" >node_modules/.inputs
}

if [[ "${1:-}" == install ]]; then
    shift
    install_packages "$@"
    exit
fi

ensure_packages
mkdir -p .cache
exec 9>.cache/bootstrap.lock
flock 9 # two makes in one clone take turns
ensure_venv
ensure_npm
