-- callgate_read_figures_v1: the stored figures of the ledger. If they are older than p_interval_s, and no other session
-- reads them now, they are read and stored first. So one process reads them for all.
--
-- All figures are read by one statement, so they are of one moment.
-- p_interval_s, p_orgs_max   see FiguresPort in callgate/domain/metric_ports.py.
-- p_rows_max, p_budgets_max, p_groups_max   bounds; see the functions that this one calls.
-- Locks     the row of ledger_figures: SKIP LOCKED. Nothing else.
-- Returns   age_s: how old the figures are. figures: each as name, labels, value.
CREATE FUNCTION callgate_read_figures_v1(
    p_interval_s float8, p_orgs_max int, p_rows_max int, p_budgets_max int, p_groups_max int
) RETURNS TABLE (read_at timestamptz, age_s float8, figures json)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT 1 FROM ledger_figures) THEN
        INSERT INTO ledger_figures (read_at, figures) VALUES ('-infinity', '[]') ON CONFLICT DO NOTHING;
    END IF;
    PERFORM 1 FROM ledger_figures f
      WHERE f.read_at <= now() - make_interval(secs => p_interval_s) FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE ledger_figures f
           SET read_at = now(),
               figures = (SELECT json_agg(json_build_array(x.name, x.labels, x.value))
                            FROM (SELECT * FROM callgate_figures_of_calls_v1(p_rows_max)
                                   UNION ALL
                                  SELECT * FROM callgate_figures_of_attempts_v1(p_rows_max, p_groups_max)
                                   UNION ALL
                                  SELECT * FROM callgate_figures_of_budgets_v1(p_orgs_max, p_budgets_max, p_groups_max)
                                   UNION ALL
                                  SELECT * FROM callgate_figures_of_keys_v1(p_groups_max)) x);
    END IF;
    RETURN QUERY
    SELECT f.read_at, extract(epoch FROM clock_timestamp() - f.read_at)::float8, f.figures FROM ledger_figures f
     WHERE f.read_at > '-infinity';
END $$;
