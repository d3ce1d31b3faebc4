-- What an operator told the node to do. One row. Written by: `verdi data byoc node drain|resume`. Read by: agent (accept,
-- heartbeat), status.
CREATE TABLE byoc.node_state (
    draining_since timestamptz,    -- null: the node takes jobs
    singleton      boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO byoc.node_state DEFAULT VALUES;
