-- The witness: whoever changes one of our processes, AiiDA's commit marks it.

-- A failure here would take AiiDA's commit back and end the process; the sweep's full pass finds what is not marked.
CREATE OR REPLACE FUNCTION byoc.mark_process() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO byoc.witness (process_pk) VALUES (new.id);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'process % is not marked: %', new.id, sqlerrm;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER byoc_witness AFTER UPDATE OF attributes ON public.db_dbnode FOR EACH ROW
WHEN (
    new.process_type LIKE 'aiida.%:byoc.%'
    AND (old.attributes -> 'process_state', old.attributes -> 'paused')
        IS DISTINCT FROM (new.attributes -> 'process_state', new.attributes -> 'paused')
    -- Processes of other plugins, which approved work chains call, have no hook of ours.
    OR new.node_type LIKE 'process.%' AND (old.attributes -> 'paused') IS DISTINCT FROM (new.attributes -> 'paused')
)
EXECUTE FUNCTION byoc.mark_process();
