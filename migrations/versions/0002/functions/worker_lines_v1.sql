-- callgate_worker_lines_v1: list the worker processes that have a lease, live ones first, with what they are made of and
-- how many of their attempts are under way.
--
-- A process that stopped in order has no lease. One whose lease was given away is left out.
-- Returns   at most 1,000. silent_s: since its last renewal. version and the next columns are null if the process has
--           published none. in_flight: at most 20,000 attempts of all processes are counted.
CREATE FUNCTION callgate_worker_lines_v1() RETURNS TABLE (
    worker_id text, began_at timestamptz, silent_s float8, is_live boolean, slots int, in_flight int, version text,
    schema_revision text, settings text, catalogue text)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH busy AS MATERIALIZED (
        SELECT split_part(a.worker_id, '/', 1) AS worker_id, count(*)::int AS in_flight
          FROM (SELECT x.worker_id FROM ai_call_log x WHERE x.posted_nano_usd IS NULL LIMIT 20000) a GROUP BY 1
    )
    SELECT w.worker_id, w.began_at, extract(epoch FROM now() - w.renewed_at)::float8, w.expires_at > now(), w.slots,
           coalesce(b.in_flight, 0), w.version, w.schema_revision, w.settings_digest, w.catalogue_digest
      FROM worker_lease w LEFT JOIN busy b USING (worker_id)
     WHERE w.began_at < w.expires_at
     ORDER BY w.expires_at > now() DESC, w.worker_id LIMIT 1000
$$;
