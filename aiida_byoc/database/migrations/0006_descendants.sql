-- Which processes belong together: those that a job's work chain called, and those that called them.

-- Functions, not views: AiiDA's migrations may alter tables that no view of ours depends on.
CREATE FUNCTION byoc.descendants(root bigint) RETURNS TABLE (process_pk bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY WITH RECURSIVE family (id) AS (
        SELECT root
        UNION
        SELECT link.output_id::bigint FROM family JOIN db_dblink AS link ON link.input_id = family.id
        WHERE link.type IN ('call_calc', 'call_work')
    ) SELECT id FROM family WHERE id <> root;
END
$$;

CREATE FUNCTION byoc.ancestors(process bigint) RETURNS TABLE (process_pk bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY WITH RECURSIVE family (id) AS (
        SELECT process
        UNION
        SELECT link.input_id::bigint FROM family JOIN db_dblink AS link ON link.output_id = family.id
        WHERE link.type IN ('call_calc', 'call_work')
    ) SELECT id FROM family WHERE id <> process;
END
$$;
