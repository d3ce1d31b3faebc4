-- The launcher goes by tenant (0010), counts go by job_unfinished: of this one nobody was left but a planner that took it
-- for the jobs of one tenant, and read all others' on the way.
DROP INDEX byoc.job_active;

-- What every heartbeat counts.
CREATE INDEX stream_quarantined ON byoc.stream (submission_id) WHERE quarantine IS NOT NULL;
