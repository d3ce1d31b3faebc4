-- What an accepted job waits for before it is launched.

-- Earlier jobs whose outputs it reads. Kept: they say which job that was. Written by: agent (accept). Read by: launcher.
CREATE TABLE byoc.depends (
    submission_id uuid NOT NULL REFERENCES byoc.job,
    earlier_id    uuid NOT NULL REFERENCES byoc.job,
    PRIMARY KEY (submission_id, earlier_id)
);

-- Files that are to be fetched; a row goes once its file is there, or given up with the job. Written by: agent (accept, the
-- lanes that fetch). Read by: launcher, doctor.
CREATE TABLE byoc.input_fetch (
    submission_id uuid NOT NULL REFERENCES byoc.job,
    sha256        text NOT NULL,
    url           text NOT NULL,
    wanted_at     timestamptz NOT NULL DEFAULT now(),
    lane          text,
    failures      integer NOT NULL DEFAULT 0,
    not_before    timestamptz NOT NULL DEFAULT now(),
    message       text,                              -- of the last failure
    PRIMARY KEY (submission_id, sha256)
);
