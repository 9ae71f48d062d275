-- callgate_limit_at_v1: a limit as it is at p_at: filled since, and with its usual capacity if no large request came of
-- late. What was observed after a refusal rises by its first amount each minute.
--
-- Rules     `Limit.at` in callgate/domain/limits.py.
-- Locks     nothing: it reads and writes no table.
CREATE FUNCTION callgate_limit_at_v1(l flow_limit, p_at timestamptz) RETURNS flow_limit
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    capacity float8;
BEGIN
    IF l.source = 'observed' THEN
        l.amount := greatest(1, floor(l.rise_per_s * (60 + greatest(0, extract(epoch FROM p_at - l.changed_at)))));
    END IF;
    capacity := callgate_limit_capacity_v1(l.amount, l.window_s, l.largest);
    l.level := least(capacity, l.level + callgate_limit_refill_v1(l)
                               * greatest(0, extract(epoch FROM p_at - l.leveled_at)));
    l.leveled_at := greatest(p_at, l.leveled_at);
    IF l.largest_at < p_at - 2 * make_interval(secs => l.window_s + 1) THEN
        l.level := l.level - capacity + callgate_limit_capacity_v1(l.amount, l.window_s, 0);
        l.largest := 0;
        l.largest_at := NULL;
    END IF;
    RETURN l;
END $$;
