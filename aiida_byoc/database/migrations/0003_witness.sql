-- What the witness on AiiDA's nodes saw, and how often the sweep had to tell what no hook had told.

-- Processes of ours whose state changed, or that were paused or played: one row per change, in AiiDA's own commit.
-- Append only and without a key besides its own, so that whoever changes a process waits for nobody.
-- Written by: the trigger in events/witness.sql. Read and deleted by: the sweep, which deletes only what it saw.
CREATE TABLE byoc.witness (
    mark       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    process_pk bigint NOT NULL
);

-- From a process to its job.
CREATE INDEX job_of_process ON byoc.job (process_pk);

-- Written by: the sweep. Read by: heartbeat, `verdi data byoc status`. Without a row: never.
CREATE TABLE byoc.repair (
    kind    text PRIMARY KEY,
    count   bigint NOT NULL DEFAULT 0,
    last_at timestamptz NOT NULL DEFAULT now()
);
