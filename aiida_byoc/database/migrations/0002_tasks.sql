-- The broker `byoc.postgres`: which process is to be continued, and by which worker.

-- Who works. One row per living worker process; renewed by it, taken away by whoever takes its work over.
-- Written by: workers. Read by: workers, `verdi data byoc doctor`.
CREATE TABLE byoc.worker (
    worker_id   uuid PRIMARY KEY,
    host        text NOT NULL,
    boot_id     text NOT NULL,
    pid         integer NOT NULL,
    pid_started bigint NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL,
    fenced_at   timestamptz
);

-- What is to be continued: one row per process that has not ended. Written by: whoever submits (in the transaction of
-- the node), workers.
CREATE TABLE byoc.task (
    task_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    process_pk bigint NOT NULL,
    body       jsonb NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT now(),
    owner      uuid REFERENCES byoc.worker,
    claimed_at timestamptz,
    attempts   integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT one_task_per_process UNIQUE (process_pk)
);
CREATE INDEX task_due ON byoc.task (not_before, task_id) WHERE owner IS NULL;
CREATE INDEX task_owned ON byoc.task (owner) WHERE owner IS NOT NULL;

-- Who answers calls: the session that listens for a process. Unlogged: after a crash of the server no session is left.
-- Written by: whoever runs a process. Read by: whoever calls it.
CREATE UNLOGGED TABLE byoc.recipient (
    identifier    text NOT NULL,
    backend_pid   integer NOT NULL,
    backend_start timestamptz NOT NULL,
    PRIMARY KEY (identifier, backend_pid)
);

-- Calls, replies and broadcasts that are too long for a notification (8000 bytes); swept after minutes.
CREATE TABLE byoc.message (
    message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body       jsonb NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT now()
);
