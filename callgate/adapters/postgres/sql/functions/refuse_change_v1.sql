-- callgate_refuse_change_v1: raise an error for a change of the action log.
CREATE FUNCTION callgate_refuse_change_v1() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
