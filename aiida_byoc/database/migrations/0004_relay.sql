-- The relay by lanes, the epoch, and what operators decide about refused events.

-- Renewed by `verdi data byoc events epoch --new`, for copies and restores that nothing else shows.
ALTER TABLE byoc.node ADD COLUMN nonce uuid NOT NULL DEFAULT gen_random_uuid();

-- Which history of this database events belong to. It changes with
--   the cluster (system identifier): a dump restored elsewhere, pg_upgrade;
--   its timeline: point-in-time recovery, a standby that was promoted;
--   the database or this table (their oids): a dump restored in the same cluster, a database copied by CREATE DATABASE;
--   the nonce.
CREATE FUNCTION byoc.epoch() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT left(md5(concat_ws('|',
        (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        'byoc.node'::regclass::oid,
        (SELECT nonce FROM byoc.node)
    )), 16)
$$;

-- Which lane of the relay has the job's events in hand: at most one POST per job is in flight.
ALTER TABLE byoc.stream
    ADD COLUMN claimed_by text,
    ADD COLUMN claimed_until timestamptz,
    ADD COLUMN quarantined_at timestamptz;

-- What the relay looks for: the job that waited longest comes first.
DROP INDEX byoc.stream_undelivered;
CREATE INDEX stream_undelivered ON byoc.stream (not_before, submission_id)
    WHERE acked_seq < latest_seq AND quarantine IS NULL;

-- Events that an operator gave up: the product never gets them, its timeline keeps a gap there.
-- Written by: `verdi data byoc events quarantine drop`. Read by: the relay, which leaves them out.
CREATE TABLE byoc.dropped (
    submission_id uuid NOT NULL REFERENCES byoc.job,
    seq           integer NOT NULL,
    refusal       jsonb NOT NULL,
    reason        text NOT NULL,
    dropped_by    text NOT NULL,
    dropped_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (submission_id, seq)
);

-- What the product may get.
CREATE VIEW byoc.deliverable AS
    SELECT * FROM byoc.event WHERE NOT EXISTS
        (SELECT FROM byoc.dropped WHERE dropped.submission_id = event.submission_id AND dropped.seq = event.seq);

-- Why nothing is delivered at the moment; no row while it works. Written by: relay. Read by: status, doctor.
CREATE TABLE byoc.relay_trouble (
    problem   text NOT NULL,
    message   text NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(),
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
