-- callgate_keep_alert_outcomes_v1: keep how deliveries of alerts ended.
--
-- p_ids           the deliveries, each once. The other arrays have one element for each of them.
-- p_failures      why it failed; NULL: it was delivered.
-- p_again_s       when to try again.
-- p_dead_after_s  a delivery that still fails so long after it was first due is dead.
-- Locks           the deliveries. Only their taker locks them.
-- Returns         the deliveries that are dead now.
CREATE FUNCTION callgate_keep_alert_outcomes_v1(
    p_ids uuid[], p_failures text[], p_again_s float8[], p_dead_after_s float8
) RETURNS SETOF uuid
LANGUAGE sql SET enable_seqscan = off AS $$
    WITH kept AS (
        UPDATE alert_delivery d
           SET delivered_at = CASE WHEN o.failure IS NULL THEN now() END,
               failure = o.failure,
               next_at = now() + make_interval(secs => o.again_s),
               dead_at = CASE WHEN o.failure IS NOT NULL
                               AND d.queued_at <= now() - make_interval(secs => p_dead_after_s) THEN now() END
          FROM unnest(p_ids, p_failures, p_again_s) AS o(id, failure, again_s)
         WHERE d.id = o.id AND d.delivered_at IS NULL
        RETURNING d.id, d.dead_at
    )
    SELECT k.id FROM kept k WHERE k.dead_at IS NOT NULL
$$;
