-- callgate_headroom_v1: how much a new hold may take from a scope now: the least over its windows; null if it has no
-- budget.
--
-- A period that has ended and is not rolled over yet counts with what was left in it: a waiting call has a timer for its
-- end.
CREATE FUNCTION callgate_headroom_v1(p_org_id text, p_scope text) RETURNS bigint
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT min(b.limit_nano_usd - b.spent_nano_usd - b.reserved_nano_usd)
      FROM (VALUES ('day'), ('month')) AS w("window")
     CROSS JOIN LATERAL (
        SELECT * FROM budget x
         WHERE x.org_id = p_org_id AND x.scope = p_scope AND x."window" = w."window"
         ORDER BY x.starts_at DESC LIMIT 1
     ) b
$$;
