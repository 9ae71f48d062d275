-- callgate_submit_v2: store submissions, and a new call for each one that no existing call answers.
--
-- A client's login can execute this without the client library. So it may submit only for its own organisations, and a
-- call id must follow from organisation and hash. Otherwise it could join, and read, a call of another organisation.
-- Rows are taken one by one. The caller has sorted them by call, so that all transactions lock calls in the same order.
-- p_forces    start the next generation even if the call has succeeded or is dead.
-- p_inherits  copy the links of a dead generation to the next one: a redrive.
-- p_priorities      0 bulk, 1 normal, 2 interactive. A submission that joins raises an open call.
-- p_start_within_s  not sent after so many seconds; null: at any time. Of several submissions the latest counts.
-- p_traceparents    the spans of the submissions; a call keeps that of the one that created it. Fewer, or none: no span.
--                   A redriven call without one goes on in the trace of the dead generation.
-- Freeze      new submissions for a frozen organisation raise P0F01, also those that a call answers already. Then nothing
--             of the batch is stored.
-- Backlog     an organisation has a bounded number of calls in the broker. The others wait in the ledger: lane_v1. New
--             ones do not pass them, except interactive ones.
-- Busy        an organisation has a bounded number of open calls. What would create more is not stored: open_calls_v1.
-- Bounded     a thousand rows at a time, and ten thousand undelivered links of one call. CHECKs bound the sizes.
-- Locks       the call, FOR SHARE while a submission joins it: settle_v2 either sees the submission or waits for it. A
--             link on an ended call locks the call's row of undelivered_call.
-- Returns     per row: outcome (created | joined | replayed | failed | idempotency_mismatch | busy), generation, state, lane
--             (call | express: publish it there; null: do not publish it), and the span that made the call. Of a busy row:
--             the open calls and their bound.
CREATE FUNCTION callgate_submit_v2(
    p_submission_ids uuid[], p_org_ids text[], p_call_ids uuid[], p_input_hashes bytea[],
    p_call_types text[], p_providers text[], p_models text[], p_input_token_bounds int[],
    p_requests bytea[], p_idempotency_keys text[], p_links text[], p_forces boolean[],
    p_inherits boolean[], p_priorities smallint[], p_start_within_s float8[], p_traceparents text[] DEFAULT '{}'
) RETURNS TABLE (ord int, outcome text, generation int, state text, lane text, open_calls int, open_calls_max int,
                 traceparent text)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM callgate_store_submissions_v1(
        p_submission_ids, p_org_ids, p_call_ids, p_input_hashes, p_call_types, p_providers, p_models, p_input_token_bounds,
        p_requests, p_idempotency_keys, p_links, p_forces, p_inherits, p_priorities, p_start_within_s, p_traceparents,
        callgate_tenant_orgs_v1());
END $$;
