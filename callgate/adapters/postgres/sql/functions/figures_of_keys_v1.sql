-- callgate_figures_of_keys_v1: how much of provider limits is used, keys that take no request for a while, other open
-- breakers, and pauses. A part of read_figures_v1.
--
-- p_groups_max  at most so many series of each kind.
CREATE FUNCTION callgate_figures_of_keys_v1(p_groups_max int)
RETURNS TABLE (name text, labels text[], value float8)
LANGUAGE sql STABLE AS $$
    WITH current AS MATERIALIZED (
        SELECT (callgate_limit_at_v1(l, now())).* FROM flow_limit l
         WHERE callgate_limit_applies_v1(l, l.provider, l.model, l.credential, now()) OR l.is_shared
         ORDER BY l.granted_at DESC NULLS LAST LIMIT 10 * p_groups_max
    ), used AS (
        SELECT c.provider, c.model, CASE c.credential WHEN '' THEN 'provider' ELSE 'organisation' END AS key,
               c.measure, c.window_s,
               CASE c.measure
               WHEN 'concurrency' THEN
                   callgate_in_flight_v1(c.provider, c.model, c.credential, c.amount)::float8 / c.amount
               ELSE 1 - c.level / callgate_limit_capacity_v1(c.amount, c.window_s, c.largest) END AS share
          FROM current c
    )
    (SELECT 'callgate_provider_limit_used_ratio', ARRAY[u.provider, u.model, u.key, u.measure, u.window_s::text],
            greatest(0, least(1, max(u.share)))::float8
       FROM used u GROUP BY 2 ORDER BY 3 DESC, 2 LIMIT p_groups_max)
     UNION ALL
    (SELECT 'callgate_blocked_keys', ARRAY[b.provider, b.model], count(*)::float8
       FROM breaker b WHERE b.is_open AND b.org_id = '' AND b.reason = 'rate_limited' AND b.probe_at IS NOT NULL
      GROUP BY 2 ORDER BY 3 DESC, 2 LIMIT p_groups_max)
     UNION ALL
    (SELECT 'callgate_open_breakers',
            ARRAY[b.provider, b.model, CASE b.credential WHEN '' THEN 'provider' ELSE 'organisation' END,
                  CASE b.org_id WHEN '' THEN 'all' ELSE 'organisation' END,
                  CASE WHEN b.probe_at IS NULL THEN 'operator' ELSE coalesce(b.reason, '') END],
            count(*)::float8
       FROM breaker b WHERE b.is_open AND NOT (b.reason IS NOT DISTINCT FROM 'rate_limited' AND b.probe_at IS NOT NULL)
      GROUP BY 2 ORDER BY 3 DESC, 2 LIMIT p_groups_max)
     UNION ALL
    SELECT 'callgate_pauses', ARRAY[k.kind], (SELECT count(*) FROM pause p WHERE p.is_freeze = (k.kind = 'freeze'))::float8
      FROM (VALUES ('pause'), ('freeze')) AS k(kind)
     UNION ALL
    SELECT 'callgate_worker_leases', ARRAY[k.state],
           (SELECT count(*) FROM worker_lease w WHERE (w.expires_at > now()) = (k.state = 'live'))::float8
      FROM (VALUES ('live'), ('expired')) AS k(state)
     UNION ALL
    SELECT 'callgate_worker_variants', ARRAY[v.part], v.variants::float8
      FROM (SELECT count(DISTINCT w.catalogue_digest) AS catalogues, count(DISTINCT w.limits_digest) AS limits,
                   count(DISTINCT w.settings_digest) AS settings, count(DISTINCT w.version) AS versions,
                   count(DISTINCT w.schema_revision) AS schemas
              FROM worker_lease w WHERE w.expires_at > now()) d
     CROSS JOIN LATERAL (VALUES ('catalogue', d.catalogues), ('limits', d.limits), ('settings', d.settings),
                                ('version', d.versions), ('schema', d.schemas)) AS v(part, variants)
$$;
