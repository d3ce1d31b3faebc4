-- Images that accepted jobs wait for: approved, not in the node's store, and to be pulled from where the policy says.
-- A job is not launched while its row is here. Written by: agent (accept, the lanes that pull). Read by: launcher, doctor.
CREATE TABLE byoc.image_pull (
    digest     text NOT NULL,
    repository text NOT NULL,
    max_mib    integer NOT NULL,
    wanted_at  timestamptz NOT NULL DEFAULT now(),
    lane       text,
    failures   integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    message    text,                               -- of the last failure
    PRIMARY KEY (digest, repository)
);
