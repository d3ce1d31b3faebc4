-- Who waits for work hears of it from the commit that makes it (NOTIFY), whoever that is, and need not look for it
-- several times a second. It still looks once a second: what comes due with time alone, nobody notifies.
CREATE FUNCTION byoc.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(tg_argv[0], '');
    RETURN NULL;
END $$;

-- The relay: there is an event to deliver.
CREATE TRIGGER notify_relay AFTER INSERT ON byoc.event FOR EACH STATEMENT
    EXECUTE FUNCTION byoc.notify('byoc_relay');

-- The launcher: a job came, or what one may have waited for is over: another's place or outputs, an image, a file.
CREATE TRIGGER notify_launcher AFTER INSERT ON byoc.job FOR EACH STATEMENT
    EXECUTE FUNCTION byoc.notify('byoc_launcher');
CREATE TRIGGER notify_launcher_of_end AFTER UPDATE OF state ON byoc.job FOR EACH ROW
    WHEN (old.state IS DISTINCT FROM new.state AND new.state IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION byoc.notify('byoc_launcher');
CREATE TRIGGER notify_launcher AFTER DELETE ON byoc.image_pull FOR EACH STATEMENT
    EXECUTE FUNCTION byoc.notify('byoc_launcher');
CREATE TRIGGER notify_launcher AFTER DELETE ON byoc.input_fetch FOR EACH STATEMENT
    EXECUTE FUNCTION byoc.notify('byoc_launcher');
