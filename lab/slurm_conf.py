"""The configuration of a lab's Slurm."""

from __future__ import annotations

__all__ = ["GPUS", "GRES_CONF", "SCRATCH_MIB", "SLURM_CONF"]

# To Slurm a GPU is the device file that a job may open; these every machine has.
GPUS = ("/dev/null", "/dev/zero")
GRES_CONF = "".join(f"Name=gpu Type=a100 File={device}\n" for device in GPUS)

SCRATCH_MIB = 65536

# cred_expire: a requeued job waits that long. The scheduler's intervals make a short job start
# within a second. config_overrides: the nodes may claim more than the machine has.
SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge_socket},cred_expire=5
CredType=cred/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={run}/slurmd/%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
SlurmctldLogFile={logs}/slurmctld.main.log
SlurmdLogFile={logs}/slurmd-%n.main.log
JobCompType=jobcomp/filetxt
JobCompLoc={home}/jobcomp.log
{accounting}
Epilog={home}/epilog.sh
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/{tracking}
TaskPlugin=task/{limiting}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams={over_memory}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_resolution=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=1
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
BatchStartTimeout=10
KillWait=2
UnkillableStepTimeout=15
CompleteWait=0
MinJobAge={min_job_age}
MaxJobCount={max_jobs}
MaxArraySize=10001
PropagateResourceLimits=NONE
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory={memory_mib} TmpDisk={scratch_mib} Gres=gpu:a100:{gpus} State=UNKNOWN
NodeName={node}[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}]
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=100
PartitionName=main Default=YES PriorityTier=1
PartitionName=high PriorityTier=10 PreemptMode=OFF
"""
