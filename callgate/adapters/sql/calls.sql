-- calls: which calls an operator means, newest first; every filter that is not null narrows.
SELECT call_id, generation
  FROM llm_call c
 WHERE (%(org_id)s::text IS NULL OR c.org_id = %(org_id)s)
   AND (%(state)s::text IS NULL OR c.state = %(state)s)
   AND (%(call_type)s::text IS NULL OR c.call_type = %(call_type)s)
   AND (%(provider)s::text IS NULL OR c.provider = %(provider)s)
   AND (%(model)s::text IS NULL OR c.model = %(model)s)
   AND (%(error_fingerprint)s::text IS NULL OR c.error_fingerprint = %(error_fingerprint)s)
   AND (%(call_ids)s::uuid[] IS NULL OR c.call_id = ANY (%(call_ids)s::uuid[]))
 ORDER BY c.created_at DESC, c.call_id, c.generation DESC
 LIMIT %(limit)s
