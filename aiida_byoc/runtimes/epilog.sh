#!/bin/sh
# aiida-byoc's Epilog for Slurm: removes what a job's container left on this compute node. It does so as the job's user,
# touches nothing but that job's, and always succeeds, since an Epilog that fails drains the node.
#
# `podman` hands its container to `conmon`, which Slurm does not follow: without this script a container may go on after
# scancel, a timeout or a lost node daemon. And what was killed with SIGKILL has not removed its scratch space.
#
# Set it as Epilog= in slurm.conf; or call it from yours, with the places where policy.toml gives scratch space.
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

[ -n "$SLURM_JOB_ID" ] && [ -n "$SLURM_JOB_UID" ] || exit 0
job="${SLURM_CLUSTER_NAME:-cluster}-$SLURM_JOB_ID"
host="${SLURMD_NODENAME:-node}.$job" # what a task of a parallel job calls its machine
runtimes=/var/tmp default=/tmp memory=/dev/shm
scratch="$runtimes/byoc-$job"
count="/sys/fs/cgroup/pids/byoc-$job"

# A command as the job's user, with nothing of ours in its environment.
as_user() {
    if [ "$(id -u)" -ne 0 ] || [ "$SLURM_JOB_UID" -eq 0 ]; then
        set -- env -i "$@"
    else
        group=$(id -g "$SLURM_JOB_UID") || return
        set -- setpriv --reuid="$SLURM_JOB_UID" --regid="$group" --init-groups env -i "$@"
    fi
    (cd / && exec timeout 60 "$@") </dev/null 2>/dev/null
}

is_of_job() {
    [ -d "$1" ] && [ ! -L "$1" ] && [ "$(stat -c %u "$1")" = "$SLURM_JOB_UID" ]
}

remove() {
    as_user chmod -R u+rwX "$1"
    as_user rm -rf --one-file-system "$1"
    [ ! -e "$1" ] || rm -rf --one-file-system "$1" 2>/dev/null
}

# Podman as the container in that directory knows it: the job's, or a task's below that.
podman_in() {
    own=$1
    shift
    as_user "PATH=$PATH" "HOME=$own" "XDG_RUNTIME_DIR=$own" "TMPDIR=$own" \
        "CONTAINERS_CONF=$own/containers.conf" podman --storage-driver=overlay \
        "--root=$own/graph" "--runroot=$own/run" "--tmpdir=$own/tmp" "$@"
}

end_containers_in() {
    containers=$(podman_in "$1" ps --all --quiet "--filter=label=slurm_job=$job")
    # The first time it may fail, when its monitor was killed together with the container.
    for attempt in 1 2 3; do
        # shellcheck disable=SC2086  (ids, a word each)
        [ -z "$containers" ] || podman_in "$1" rm --force --time=1 $containers >/dev/null || continue
        break
    done
    podman_in "$1" system migrate >/dev/null
}

# Processes that have the job's name as a word of their own (the first of a container: all others end with it), or as the
# HOSTNAME that podman gives.
end_processes() {
    for file in $(grep -lzxF -e "$job" -e "$host" /proc/[0-9]*/cmdline 2>/dev/null) \
        $(grep -lzxF -e "HOSTNAME=$job" -e "HOSTNAME=$host" /proc/[0-9]*/environ 2>/dev/null); do
        process=${file%/*}
        if [ "$(stat -c %u "$process" 2>/dev/null)" = "$SLURM_JOB_UID" ]; then
            kill -KILL "${process#/proc/}" 2>/dev/null
        fi
    done
}

# A job that ended in order has noted there that none is left. Slurm's exit code is no proof: a cancelled job's is 0.
[ -e "$SLURM_JOB_WORK_DIR/byoc_none_left/$SLURM_JOB_ID" ] || end_processes

if is_of_job "$scratch"; then
    for own in "$scratch" "$scratch"/[0-9]*; do
        if [ -d "$own/graph" ] && [ ! -L "$own" ] && [ ! -L "$own/graph" ]; then
            end_containers_in "$own"
        fi
    done
    remove "$scratch"
fi

for place in "$default" "$memory" "$@"; do
    if is_of_job "$place/byoc-$job"; then
        remove "$place/byoc-$job"
    fi
done

[ ! -d "$count" ] || rmdir "$count" 2>/dev/null
exit 0
