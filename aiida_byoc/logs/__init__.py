"""What a job's program wrote, read part by part, by a process of its own: no log may hold up anything else."""
