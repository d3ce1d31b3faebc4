-- What tenants have and use of the node, and a launcher that serves them in turn.

-- Nodes times walltime that the job asks for, in seconds, and whether it reads outputs of earlier jobs. Written by: agent
-- (accept). Read by: agent (quotas), launcher.
ALTER TABLE byoc.job
    ADD COLUMN node_seconds bigint NOT NULL DEFAULT 0,
    ADD COLUMN reads_jobs boolean NOT NULL DEFAULT false;
UPDATE byoc.job SET
    node_seconds = coalesce((command #>> '{resource_shape,nodes}')::bigint, 1)
        * (command #>> '{resource_shape,walltime_seconds}')::bigint,
    reads_jobs = EXISTS (SELECT FROM byoc.depends WHERE depends.submission_id = job.submission_id)
WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held');

-- What the launcher looks for: the oldest of each tenant, who has how many under way, and what can only be failed.
DROP INDEX byoc.job_to_launch;
CREATE INDEX job_to_launch ON byoc.job (tenant_id, accepted_at) WHERE state = 'accepted';
CREATE INDEX job_under_way ON byoc.job (tenant_id) WHERE state IN ('launched', 'queued', 'running', 'held');
CREATE INDEX job_past_deadline ON byoc.job (deadline) WHERE state = 'accepted' AND deadline IS NOT NULL;
CREATE INDEX job_reading ON byoc.job (accepted_at) WHERE state = 'accepted' AND reads_jobs;

-- What acceptance looks for: what a tenant has that did not end, and its newest jobs.
CREATE INDEX job_unfinished ON byoc.job (tenant_id) INCLUDE (node_seconds)
    WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held');
CREATE INDEX job_submitted ON byoc.job (tenant_id, accepted_at) WHERE state IS NOT NULL;

-- What ran: one row per attempt that was seen running, once it is over. Append only; kept with the claim.
-- Written by: whoever tells its end, in that transaction. Read by: agent (quotas).
CREATE TABLE byoc.usage (
    submission_id uuid NOT NULL REFERENCES byoc.job,
    attempt       integer NOT NULL,
    tenant_id     text NOT NULL,
    node_seconds  double precision NOT NULL CHECK (node_seconds >= 0),
    ended_at      timestamptz NOT NULL,
    PRIMARY KEY (submission_id, attempt)
);
CREATE INDEX usage_of_tenant ON byoc.usage (tenant_id, ended_at) INCLUDE (node_seconds);
INSERT INTO byoc.usage
    SELECT submission_id, job.attempt, tenant_id,
           greatest(0, extract(epoch FROM (snapshot #>> '{timings,ended}')::timestamptz
               - (snapshot #>> '{timings,started}')::timestamptz))
               * coalesce((command #>> '{resource_shape,nodes}')::bigint, 1),
           event.occurred_at
    FROM byoc.job JOIN byoc.event USING (submission_id, seq)
    WHERE state IN ('succeeded', 'failed', 'cancelled') AND command IS NOT NULL
      AND snapshot #>> '{timings,started}' IS NOT NULL AND snapshot #>> '{timings,ended}' IS NOT NULL;

-- How many calculations of a process have not ended. A function, as in 0006.
CREATE FUNCTION byoc.calculations(root bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (SELECT count(*) FROM byoc.descendants(root) JOIN db_dbnode AS node ON node.id = process_pk
            WHERE node.node_type LIKE 'process.calculation.calcjob.%'
              AND node.attributes ->> 'process_state' NOT IN ('finished', 'excepted', 'killed'));
END
$$;
