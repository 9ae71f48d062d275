-- callgate_concurrency_refusal_v1: why a queued call must wait until fewer calls of its organisation run, as JSON; null: it
-- need not.
--
-- Rules     `Places.refusal_of` in callgate/domain/concurrency.py. A new call counts those that came before it and wait as
--           if they ran, so that it does not overtake them. One that was released for its provider is not new: else the
--           two lines would refuse each other's calls, and none would run.
-- Locks     nothing. The caller has locked the organisation (lock_orgs_v1), so no other transaction starts its calls.
CREATE FUNCTION callgate_concurrency_refusal_v1(c llm_call) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    org_max CONSTANT int := callgate_concurrency_max_v1('organisation', c.org_id);
    type_max CONSTANT int := callgate_concurrency_max_v1('call_type', c.call_type);
    is_new CONSTANT boolean := NOT c.is_in_line AND c.breaker_id IS NULL;
    taken int;
    refusing text;
BEGIN
    IF type_max IS NOT NULL THEN
        taken := callgate_running_v1(c.org_id, c.call_type, type_max);
        IF is_new THEN
            taken := taken + callgate_in_line_v1(c.org_id, c.call_type, type_max);
        END IF;
        IF taken >= type_max THEN
            refusing := concat_ws(' ', type_max, c.call_type, 'calls of', c.org_id);
        END IF;
    END IF;
    IF org_max IS NOT NULL AND refusing IS NULL THEN
        taken := callgate_running_v1(c.org_id, NULL, org_max);
        IF taken < org_max AND is_new THEN
            -- Those that wait for a place of their type do not take one of the organisation.
            taken := taken + coalesce((
                SELECT sum(least(
                           callgate_in_line_v1(c.org_id, t.call_type, org_max),
                           CASE WHEN m.amount IS NULL THEN org_max
                                ELSE greatest(0, m.amount - callgate_running_v1(c.org_id, t.call_type, m.amount)) END))
                  FROM (SELECT DISTINCT k.call_type FROM callgate_lines_v1(c.org_id) k) t
                 CROSS JOIN LATERAL (SELECT callgate_concurrency_max_v1('call_type', t.call_type) AS amount OFFSET 0) m
            ), 0);
        END IF;
        IF taken >= org_max THEN
            refusing := concat_ws(' ', org_max, 'calls of', c.org_id);
        END IF;
    END IF;
    IF refusing IS NOT NULL THEN
        RETURN json_build_object('code', 'concurrency_limited', 'message', refusing || ' may run at a time');
    END IF;
    RETURN NULL;
END $$;
