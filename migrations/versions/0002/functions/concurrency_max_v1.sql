-- callgate_concurrency_max_v1: how many calls of an organisation may run at a time; null: any number.
--
-- p_calls_of  organisation: all calls of the organisation p_name. call_type: those of the call type p_name, of each one.
CREATE FUNCTION callgate_concurrency_max_v1(p_calls_of text, p_name text) RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT r.amount FROM flow_concurrency r
     WHERE r.calls_of = p_calls_of AND r.name IN (p_name, '') ORDER BY r.name = '' LIMIT 1
$$;
