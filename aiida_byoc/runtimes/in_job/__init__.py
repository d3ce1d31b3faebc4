"""Run one container inside a Slurm job and leave a completion record. Standard library only, Python 3.6 or newer.

This package is copied into every job's directory and executed there, outside the container, by
`python3 -m byoc_in_job`:

    byoc_job.json        what to run (read)
    byoc_fence/          made first; a second copy of the job finds it and leaves without a trace;
                         its file `owner` holds the Slurm id of the job that made it
    work/                the container's only window to the disk
    outputs/             declared outputs, moved here once verified: the container cannot reach them any more
    byoc_record.json     the completion record, written last, by atomic rename

Exit status: the container's, 125 when it did not start, 75 (EX_TEMPFAIL) when the fence was already taken.
"""

PROGRAM = "byoc_in_job"
"""What this package is called in a job's directory."""

SPECIFICATION = "byoc_job.json"
RECORD = "byoc_record.json"
FENCE = "byoc_fence"
OWNER = "owner"
WORK = "work"
OUTPUTS = "outputs"
STATUS_FD = "{status_fd}"
"""Stands in a command line for the descriptor on which the runtime reports what really ran."""
NOT_STARTED = 125
FENCED = 75
