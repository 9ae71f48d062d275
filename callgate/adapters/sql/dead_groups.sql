-- dead_groups: dead letters that failed alike, the largest group first; what was redriven is no dead letter.
SELECT coalesce(c.error_fingerprint, '') AS error_fingerprint, c.provider, c.model,
       (array_agg(c.error ORDER BY c.created_at DESC))[1] AS sample_error, count(*)::int AS count,
       min(c.created_at) AS first_at, max(c.created_at) AS last_at
  FROM llm_call c
 WHERE c.state = 'dead'
   AND NOT EXISTS (SELECT 1 FROM llm_call n
                    WHERE n.call_id = c.call_id AND n.generation > c.generation)
   AND (%(org_id)s::text IS NULL OR c.org_id = %(org_id)s)
   AND (%(call_type)s::text IS NULL OR c.call_type = %(call_type)s)
   AND (%(provider)s::text IS NULL OR c.provider = %(provider)s)
   AND (%(model)s::text IS NULL OR c.model = %(model)s)
   AND (%(error_fingerprint)s::text IS NULL OR c.error_fingerprint = %(error_fingerprint)s)
   AND (%(call_ids)s::uuid[] IS NULL OR c.call_id = ANY (%(call_ids)s::uuid[]))
 GROUP BY 1, 2, 3
 ORDER BY count(*) DESC, 1, 2, 3
