-- callgate_refuse_change_v1: what the action log says to whoever would change or delete a row of it.
CREATE FUNCTION callgate_refuse_change_v1() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
