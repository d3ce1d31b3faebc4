-- Tasks of arrays that are not wanted any more. `tasks`: ranges of numbers, [[first, last], …], both included, in order
-- and apart; `fingerprint`: of these. `told`: the calculation whose directory has them. Append only but for that.
-- Written by: agent (cancel), launcher (`told`). Read by: agent (cancel), workers, launcher.
CREATE TABLE byoc.task_cancel (
    submission_id uuid NOT NULL REFERENCES byoc.job,
    fingerprint   text NOT NULL,
    tasks         jsonb NOT NULL,
    requested_at  timestamptz NOT NULL,
    told          bigint,
    PRIMARY KEY (submission_id, fingerprint)
);
