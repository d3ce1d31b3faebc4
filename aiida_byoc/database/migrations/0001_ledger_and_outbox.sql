-- The ledger and the outbox of a management node.
-- A schema of our own: AiiDA's migrator empties every table of the default schema when it resets a profile.

-- Which node this is. One row. Written by `byoc init`; read by whoever emits an event.
CREATE TABLE byoc.node (
    node_id   text NOT NULL CHECK (node_id ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'),
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);

CREATE TYPE byoc.execution_state AS ENUM
    ('accepted', 'launched', 'queued', 'running', 'held', 'succeeded', 'failed', 'cancelled');

-- The ledger: one row per job a tenant had accepted, or cancelled before it was submitted (a tombstone: command
-- is null). Written by: agent (accept, cancel), launcher (launch), process hooks (what was last reported).
CREATE TABLE byoc.job (
    submission_id       uuid PRIMARY KEY,
    tenant_id           text NOT NULL,
    workspace_id        text NOT NULL,
    job_id              text NOT NULL,
    idempotency_key     text,
    fingerprint         text,
    command             jsonb,
    placement           jsonb,
    trace_id            text NOT NULL,
    accepted_at         timestamptz NOT NULL,
    deadline            timestamptz,

    process_uuid        uuid UNIQUE,
    process_pk          bigint,
    dispatched_at       timestamptz,
    launch_failures     integer NOT NULL DEFAULT 0,
    launch_not_before   timestamptz NOT NULL DEFAULT now(),

    cancel_requested_at timestamptz,
    cancel_reason       text,

    state               byoc.execution_state,
    held_from           byoc.execution_state,
    attempt             integer NOT NULL DEFAULT 1,
    seq                 integer NOT NULL DEFAULT 0,
    snapshot            jsonb NOT NULL DEFAULT '{}',

    CONSTRAINT one_claim_per_key UNIQUE (tenant_id, idempotency_key),
    CONSTRAINT one_row_per_job UNIQUE (tenant_id, job_id),
    CONSTRAINT tombstones_carry_nothing CHECK ((command IS NULL) = (idempotency_key IS NULL)),
    CONSTRAINT accepted_jobs_have_a_state CHECK ((command IS NULL) = (state IS NULL))
);

-- What the launcher looks for.
CREATE INDEX job_to_launch ON byoc.job (accepted_at) WHERE state = 'accepted';
CREATE INDEX job_to_dispatch ON byoc.job (accepted_at) WHERE state = 'launched' AND dispatched_at IS NULL;
CREATE INDEX job_to_stop ON byoc.job (cancel_requested_at)
    WHERE cancel_requested_at IS NOT NULL AND state IN ('launched', 'queued', 'running', 'held');
CREATE INDEX job_active ON byoc.job (accepted_at)
    WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held');

-- The outbox: every event ever emitted, in the words of its contract. Append only.
-- Written by: whoever changes a job's state, in that transaction. Read by: relay, `verdi data byoc events`.
CREATE TABLE byoc.event (
    submission_id uuid NOT NULL REFERENCES byoc.job,
    seq           integer NOT NULL CHECK (seq >= 1),
    event_id      text NOT NULL UNIQUE,
    body          jsonb NOT NULL,
    occurred_at   timestamptz NOT NULL,
    PRIMARY KEY (submission_id, seq)
);

-- How far the product has each job. Apart from byoc.job, so that no hook waits for the relay.
-- Written by: outbox (latest_seq), relay (the rest).
CREATE TABLE byoc.stream (
    submission_id uuid PRIMARY KEY REFERENCES byoc.job,
    latest_seq    integer NOT NULL,
    acked_seq     integer NOT NULL DEFAULT 0,
    failures      integer NOT NULL DEFAULT 0,
    not_before    timestamptz NOT NULL DEFAULT now(),
    quarantine    jsonb
);
CREATE INDEX stream_undelivered ON byoc.stream (submission_id)
    WHERE acked_seq < latest_seq AND quarantine IS NULL;
