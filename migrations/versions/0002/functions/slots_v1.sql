-- callgate_slots_v1: how many calls the live workers run at a time. Null: not all of them say it; those of 0.1.0 do not.
CREATE FUNCTION callgate_slots_v1() RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN bool_and(w.slots IS NOT NULL) THEN nullif(least(sum(w.slots), 1000000), 0)::int END
      FROM worker_lease w WHERE w.expires_at > now()
$$;
