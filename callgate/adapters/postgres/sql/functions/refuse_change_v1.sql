-- callgate_refuse_change_v1: refuse to change or delete a row of the action log.
CREATE FUNCTION callgate_refuse_change_v1() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
