-- callgate_workers_differ_v1: what differs between the workers that have been alive for a while, and which of them are not
-- like most.
--
-- p_age_s     younger workers are left out: so a rolling upgrade is quiet.
-- p_rows_max  at most so many workers are read.
-- Returns     null if nothing differs. differ: names of what differs. workers: the first five that differ, by id. count:
--             how many differ. alive: how many were compared.
CREATE FUNCTION callgate_workers_differ_v1(p_age_s float8, p_rows_max int) RETURNS jsonb
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH compared AS MATERIALIZED (
        SELECT w.*, concat_ws(' ', w.version, w.schema_revision, w.settings_digest, w.catalogue_digest) AS made_of
          FROM worker_lease w
         WHERE w.expires_at > now() AND w.version IS NOT NULL AND w.began_at <= now() - make_interval(secs => p_age_s)
         ORDER BY w.worker_id LIMIT p_rows_max
    ), usual AS (
        SELECT c.made_of FROM compared c GROUP BY 1 ORDER BY count(*) DESC, c.made_of COLLATE "C" DESC LIMIT 1
    ), odd AS (
        SELECT c.worker_id FROM compared c, usual u WHERE c.made_of <> u.made_of
    ), section AS (
        SELECT string_agg(x.name, ', ' ORDER BY x.name COLLATE "C") AS names
          FROM (SELECT s.key AS name FROM compared c CROSS JOIN LATERAL jsonb_each_text(c.catalogue_sections) s
                 GROUP BY s.key HAVING count(DISTINCT s.value) > 1) x
    ), part AS (
        SELECT count(DISTINCT c.version) AS versions, count(DISTINCT c.schema_revision) AS schemas,
               count(DISTINCT c.settings_digest) AS settings, count(DISTINCT c.catalogue_digest) AS catalogues,
               count(*) AS workers
          FROM compared c
    )
    SELECT jsonb_build_object(
               'differ', array_remove(ARRAY[
                   CASE WHEN p.versions > 1 THEN 'version' END, CASE WHEN p.schemas > 1 THEN 'schema' END,
                   CASE WHEN p.settings > 1 THEN 'settings' END,
                   CASE WHEN p.catalogues > 1 THEN concat('catalogue', ' (' || s.names || ')') END], NULL),
               'workers', (
                   SELECT jsonb_agg(o.worker_id ORDER BY o.worker_id COLLATE "C")
                     FROM (SELECT * FROM odd x ORDER BY x.worker_id COLLATE "C" LIMIT 5) o),
               'count', (SELECT count(*) FROM odd), 'alive', p.workers)
      FROM part p, section s
     WHERE p.versions > 1 OR p.schemas > 1 OR p.settings > 1 OR p.catalogues > 1
$$;
