-- callgate_period_v1: the period [starts_at, ends_at) of a window that holds a moment.
--
-- Both ends are midnights of the budget's time zone, so a day of a clock change has 23 or 25 hours.
CREATE FUNCTION callgate_period_v1(
    p_window text, p_timezone text, p_at timestamptz, OUT starts_at timestamptz, OUT ends_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT date_trunc(p_window, p_at AT TIME ZONE p_timezone) AT TIME ZONE p_timezone,
           (date_trunc(p_window, p_at AT TIME ZONE p_timezone) + ('1 ' || p_window)::interval)
               AT TIME ZONE p_timezone
$$;
