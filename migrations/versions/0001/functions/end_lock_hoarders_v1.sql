-- callgate_end_lock_hoarders_v1: end sessions of clients that fill the server's table of locks.
--
-- All sessions share that table, and Postgres can forbid nobody to fill it: an advisory lock needs no privilege, nor does a
-- savepoint. By the server's settings it has room for max_locks_per_transaction * (max_connections + max_prepared_transactions)
-- locks; Postgres in fact finds room for nearly twice as many. One login may hold a quarter of that, all clients together a
-- half. An honest session holds about a hundred at most. Where there are more, the sessions with the most locks are ended.
-- Only members of callgate_client are ended: no owner, no superuser, no worker, though they may be members as well.
-- Locks     those of catalogs, and no others: the caller holds them before (PostgresLockWatch), for there may be no room for them.
-- Returns   the sessions that hold too much. Not ended: the owner of this function may not (pg_signal_backend), or it is gone.
CREATE FUNCTION callgate_end_lock_hoarders_v1()
RETURNS TABLE (login text, locks bigint, pid int, was_ended boolean)
LANGUAGE plpgsql AS $$
DECLARE
    room bigint := current_setting('max_locks_per_transaction')::bigint
                 * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint);
BEGIN
    -- Or a transaction that stays open would see the sessions of its first look.
    PERFORM pg_stat_clear_snapshot();
    RETURN QUERY
    WITH counted AS MATERIALIZED (
        -- fastpath: kept by the session itself, in no shared table. SIReadLock: in another one.
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
      FROM clients x WHERE x.of_login > room / 4 OR x.of_all > room / 2;
END $$;
