-- callgate_period_v1: the period [starts_at, ends_at) of a window that contains a moment; nulls if the server does not
-- know the time zone.
--
-- Both ends are midnights in the budget's time zone, so a day of a clock change has 23 or 25 hours. Only the database
-- computes them, because another program may have another list of time zones.
CREATE FUNCTION callgate_period_v1(
    p_window text, p_timezone text, p_at timestamptz, OUT starts_at timestamptz, OUT ends_at timestamptz
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    starts_at := date_trunc(p_window, p_at AT TIME ZONE p_timezone) AT TIME ZONE p_timezone;
    ends_at := (date_trunc(p_window, p_at AT TIME ZONE p_timezone) + ('1 ' || p_window)::interval)
               AT TIME ZONE p_timezone;
EXCEPTION WHEN invalid_parameter_value THEN
    starts_at := NULL;
    ends_at := NULL;
END $$;
