-- callgate_slot_share_v1: the most slots that an organisation may have beside the others: `share_of` in
-- callgate/domain/slots.py.
--
-- p_wanted  how many slots each organisation could use; infinity: any number.
-- Returns   null: all of them find theirs.
CREATE FUNCTION callgate_slot_share_v1(p_slots int, p_wanted float8[]) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT x.part
      FROM (SELECT w.want, w.nth,
                   (p_slots - coalesce(sum(w.want) OVER (ORDER BY w.nth ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0))
                   / (cardinality(p_wanted) - w.nth + 1) AS part
              FROM (SELECT y.want, row_number() OVER (ORDER BY y.want) AS nth FROM unnest(p_wanted) AS y(want)) w) x
     WHERE x.want >= x.part ORDER BY x.nth LIMIT 1
$$;
