-- dead_letter: dead calls of which no later generation exists, and unprocessable messages. A reader sees only the rows
-- that the tables would show.
CREATE VIEW dead_letter WITH (security_invoker = true) AS
SELECT 'call' AS kind, c.org_id, c.call_id, c.generation, NULL::bigint AS message_id, c.error AS reason,
       c.error_fingerprint, c.created_at AS at
  FROM llm_call c
 WHERE c.state = 'dead'
   AND NOT EXISTS (SELECT 1 FROM llm_call n
                    WHERE n.call_id = c.call_id AND n.generation > c.generation)
UNION ALL
SELECT 'unprocessable', NULL, NULL, NULL, s.id, s.reason, NULL, s.at FROM unprocessable_message s;
