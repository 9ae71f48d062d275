-- callgate_headroom_v1: how much a new hold in a scope may cost now: the least over the budgets of its windows; null if
-- it has no budget.
--
-- A period that has ended and is not rolled over yet still counts with what was left in it. A call that waits for the
-- next period has a timer for the end of this one.
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
