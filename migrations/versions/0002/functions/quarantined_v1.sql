-- callgate_quarantined_v1: list open calls that may have killed a worker, oldest first: a worker of theirs vanished, or
-- two sweeps found them unclaimed.
--
-- p_sweeps  from how many sweeps on.
-- Returns   at most 1,000, of at most 5,000 queued calls and 5,000 others that are looked at.
CREATE FUNCTION callgate_quarantined_v1(p_sweeps int, p_limit int) RETURNS TABLE (
    call_id uuid, generation int, org_id text, call_type text, provider text, model text, state text, wait_reason text,
    attempts int, worker_losses int, sweeps int, created_at timestamptz, due_at timestamptz)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.state, coalesce(c.wait_reason, ''),
           c.attempt, m.losses, c.sweeps, c.created_at, c.due_at
      FROM ((SELECT l.* FROM llm_call l WHERE l.state = 'queued' ORDER BY l.due_at LIMIT 5000)
             UNION ALL
            (SELECT l.* FROM llm_call l
              WHERE l.state <> 'queued' AND l.due_at IS NOT NULL ORDER BY l.due_at LIMIT 5000)) c
     CROSS JOIN LATERAL (
           SELECT count(*)::int AS losses FROM ai_call_log a
            WHERE c.attempt > 0 AND a.call_id = c.call_id AND a.generation = c.generation
              AND a.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
              AND a.status = 'unknown' AND a.finished_at IS NULL) m
     WHERE c.state IN ('queued', 'running', 'waiting')
       AND (m.losses > 0 OR c.sweeps >= p_sweeps OR c.wait_reason = 'quarantine')
     ORDER BY c.created_at, c.call_id LIMIT least(p_limit, 1000)
$$;
