-- Tombstones by workspace, what is forgotten after a while, and which processes are played again.

-- A job is one row of its tenant, and so is the cancel of an unknown one, but of its workspace alone: a cancel that names
-- the wrong workspace does not refuse the submission in the right one.
ALTER TABLE byoc.job
    DROP CONSTRAINT one_row_per_job,
    ADD CONSTRAINT one_row_per_job UNIQUE (tenant_id, job_id, workspace_id),
    DROP CONSTRAINT tombstones_carry_nothing,
    ADD CONSTRAINT tombstones_have_no_key CHECK ((state IS NULL) = (idempotency_key IS NULL)),
    DROP CONSTRAINT accepted_jobs_have_a_state,
    ADD CONSTRAINT jobs_that_live_have_a_command CHECK (
        CASE WHEN state IS NULL THEN command IS NULL
             ELSE command IS NOT NULL OR state IN ('succeeded', 'failed', 'cancelled') END);
CREATE UNIQUE INDEX one_claim_per_job ON byoc.job (tenant_id, job_id) WHERE state IS NOT NULL;

-- What retention looks for. Of a forgotten job the claim stays (command is null), and its last event.
CREATE INDEX job_to_forget ON byoc.job (accepted_at)
    WHERE command IS NOT NULL AND state IN ('succeeded', 'failed', 'cancelled');

-- Processes that AiiDA paused because the cluster failed them, and how often they were played again. Written by: launcher.
CREATE TABLE byoc.play (
    process_pk    bigint NOT NULL,
    stage         text NOT NULL,  -- what was to be done next, in AiiDA's words: one that got on starts anew
    submission_id uuid NOT NULL REFERENCES byoc.job,
    plays         integer NOT NULL DEFAULT 0,
    next_at       timestamptz,    -- null: played, and not seen paused since
    given_up      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (process_pk, stage)
);
CREATE INDEX play_of_job ON byoc.play (submission_id);
