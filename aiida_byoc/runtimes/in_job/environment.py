"""The container's environment: what the command and its image say, and the few things that only the job knows."""

from .light import os

SCRATCH_INSIDE = "/scratch"
"""Where the container finds its scratch space."""

GPU_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ROCR_VISIBLE_DEVICES",
    "SLURM_JOB_GPUS",
    "ZE_AFFINITY_MASK",
)
"""Which GPUs are the job's, in the words of their makers and of Slurm (gres.conf(5))."""

TASK_VARIABLES = (
    "PMI_FD",
    "PMI_JOBID",
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_SPAWNED",
    "SLURM_CPUS_PER_TASK",
    "SLURM_LOCALID",
    "SLURM_NNODES",
    "SLURM_NODEID",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
)
"""Which task of a parallel job this is, of how many, and how it finds the others (srun(1))."""


def environment(specification):
    """The variables of the container; the job's own win over what anybody wrote."""
    given = dict(specification["env"])
    if specification.get("gpus"):
        given.update(_of_the_job(GPU_VARIABLES))
    if specification.get("tasks"):
        given.update(_of_the_job(TASK_VARIABLES))
    if specification.get("scratch"):
        given["BYOC_SCRATCH"] = SCRATCH_INSIDE
        given["BYOC_SCRATCH_MIB"] = str(specification["scratch"]["mib"])
    return given


def _of_the_job(names):
    return {name: os.environ[name] for name in names if name in os.environ}
