-- callgate_current_figures_v1: the figures of the ledger at this moment. Nothing is stored.
--
-- For a person who looks once, on a standby too; what is scraped reads callgate_read_figures_v1.
-- p_orgs_max, p_rows_max, p_budgets_max, p_groups_max   bounds; see the functions that this one calls.
-- Locks     none.
CREATE FUNCTION callgate_current_figures_v1(p_orgs_max int, p_rows_max int, p_budgets_max int, p_groups_max int)
RETURNS TABLE (name text, labels text[], value float8)
LANGUAGE sql STABLE SET jit = off AS $$
    SELECT * FROM callgate_figures_of_calls_v1(p_rows_max)
     UNION ALL
    SELECT * FROM callgate_figures_of_attempts_v1(p_rows_max, p_groups_max)
     UNION ALL
    SELECT * FROM callgate_figures_of_budgets_v1(p_orgs_max, p_budgets_max, p_groups_max)
     UNION ALL
    SELECT * FROM callgate_figures_of_keys_v1(p_groups_max)
$$;
