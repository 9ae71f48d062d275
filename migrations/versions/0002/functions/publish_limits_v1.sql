-- callgate_publish_limits_v1: let a worker's declaration of limits count for all workers from now on.
--
-- The newest declaration counts. The lease of each worker keeps which one it has published.
-- p_declaration  `Declaration.to_json`.
-- Locks          the row of the catalogue, then declared limits, by id.
CREATE FUNCTION callgate_publish_limits_v1(p_worker_id text, p_digest text, p_declaration text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    declared CONSTANT jsonb := p_declaration::jsonb;
BEGIN
    INSERT INTO flow_catalogue AS f (digest, worker_id, cautious, counting_used, open_calls_max)
    VALUES (p_digest, p_worker_id, ARRAY(SELECT jsonb_array_elements_text(declared -> 'cautious')),
            ARRAY(SELECT jsonb_array_elements_text(declared -> 'counting_used')),
            (declared ->> 'open_calls_max')::int)
    ON CONFLICT (is_only) DO UPDATE
       SET digest = excluded.digest, worker_id = excluded.worker_id, cautious = excluded.cautious,
           counting_used = excluded.counting_used, open_calls_max = excluded.open_calls_max, published_at = now();
    DELETE FROM flow_rule;
    INSERT INTO flow_rule (provider, model, credential, is_shared, measure, window_s, amount, counts_used)
    SELECT DISTINCT ON (r.provider, r.model, r.credential, r.measure, r.window_s)
           r.provider, r.model, r.credential, r.is_shared, r.measure, r.window_s, r.amount, r.counts_used
      FROM jsonb_to_recordset(declared -> 'rules') AS r(
           provider text, model text, credential text, is_shared boolean, measure text, window_s int, amount bigint,
           counts_used boolean)
     ORDER BY r.provider, r.model, r.credential, r.measure, r.window_s, r.amount;
    DELETE FROM flow_concurrency;
    INSERT INTO flow_concurrency (calls_of, name, amount)
    SELECT r.calls_of, r.name, r.amount
      FROM jsonb_to_recordset(coalesce(declared -> 'concurrency', '[]')) AS r(calls_of text, name text, amount int);
    PERFORM 1 FROM flow_limit x WHERE x.source = 'declared' ORDER BY x.id FOR UPDATE;
    -- Of several rules that make a limit, the lowest counts.
    UPDATE flow_limit x
       SET amount = r.amount, counts_used = r.counts_used, changed_at = now(),
           level = least(x.level, callgate_limit_capacity_v1(r.amount, x.window_s, x.largest))
      FROM (SELECT DISTINCT ON (y.id) y.id, q.amount, q.counts_used
              FROM flow_limit y JOIN flow_rule q ON callgate_rule_makes_v1(q, y)
             WHERE y.source = 'declared' ORDER BY y.id, q.amount) r
     WHERE x.id = r.id AND (x.amount, x.counts_used) <> (r.amount, r.counts_used);
    DELETE FROM flow_limit x
     WHERE x.source = 'declared' AND NOT EXISTS (SELECT 1 FROM flow_rule r WHERE callgate_rule_makes_v1(r, x));
    UPDATE worker_lease w SET limits_digest = p_digest WHERE w.worker_id = p_worker_id;
END $$;
