-- callgate_end_lock_hoarders_v1: end sessions of clients that fill the server's table of locks.
--
-- All sessions share this table, and Postgres has no limit for one session: advisory locks and savepoints need no
-- privilege. The server's settings give it a capacity of max_locks_per_transaction * (max_connections +
-- max_prepared_transactions) locks. Postgres in fact has room for nearly twice as many. One login may hold a quarter of
-- the capacity, and all clients together a half. Above that, the sessions with the most locks are ended. A normal
-- session holds about a hundred locks at most.
-- Only members of callgate_client are ended. An owner, a superuser or a worker is never ended, even as a member.
-- Locks     only catalogs, and the caller (PostgresLockWatch) already holds those locks. When the table is full, no new
--           lock can be taken.
-- Returns   the sessions that hold too many locks. was_ended is false if the owner of this function may not end
--           sessions (pg_signal_backend), or if the session has already ended.
CREATE FUNCTION callgate_end_lock_hoarders_v1()
RETURNS TABLE (login text, locks bigint, pid int, was_ended boolean)
LANGUAGE plpgsql AS $$
DECLARE
    capacity bigint := current_setting('max_locks_per_transaction')::bigint
                     * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint);
BEGIN
    -- Without this, a transaction that stays open would see the sessions of its first look again.
    PERFORM pg_stat_clear_snapshot();
    RETURN QUERY
    WITH counted AS MATERIALIZED (
        -- Fast-path locks are in the session's own memory. SIReadLocks are in another shared table.
        SELECT k.pid, count(*) AS locks FROM pg_lock_status() k
         WHERE NOT k.fastpath AND k.mode <> 'SIReadLock' GROUP BY k.pid
    ), clients AS MATERIALIZED (
        SELECT a.usesysid AS id, c.pid, c.locks,
               sum(c.locks) OVER (PARTITION BY a.usesysid ORDER BY c.locks, c.pid) AS of_login,
               sum(c.locks) OVER (ORDER BY c.locks, c.pid) AS of_all
          FROM counted c JOIN pg_stat_get_activity(NULL) a ON a.pid = c.pid
         WHERE pg_has_role(a.usesysid, 'callgate_client', 'MEMBER')
           -- A superuser is a member of every role.
           AND NOT pg_has_role(a.usesysid, current_user, 'MEMBER') AND NOT pg_has_role(a.usesysid, 'callgate_worker', 'MEMBER')
    )
    SELECT pg_get_userbyid(x.id)::text, x.locks, x.pid,
           CASE WHEN pg_has_role(current_user, 'pg_signal_backend', 'USAGE') OR pg_has_role(current_user, x.id, 'USAGE')
                THEN pg_terminate_backend(x.pid) ELSE false END
      FROM clients x WHERE x.of_login > capacity / 4 OR x.of_all > capacity / 2;
END $$;
