-- callgate_limit_publishers_v1: list the worker processes that have published provider limits, and whether theirs count.
CREATE FUNCTION callgate_limit_publishers_v1() RETURNS TABLE (worker_id text, digest text, is_current boolean)
LANGUAGE sql STABLE AS $$
    SELECT w.worker_id, w.limits_digest, w.limits_digest = f.digest
      FROM worker_lease w CROSS JOIN flow_catalogue f
     WHERE w.limits_digest IS NOT NULL
     ORDER BY w.worker_id
$$;
