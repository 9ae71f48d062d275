-- dead_letter: everything callgate stopped trying and nobody has redriven since, calls and stray messages alike.
-- Whoever reads it sees what the tables would show them.
CREATE VIEW dead_letter WITH (security_invoker = true) AS
SELECT 'call' AS kind, c.org_id, c.call_id, c.generation, NULL::bigint AS stray_id, c.error AS reason,
       c.error_fingerprint, c.created_at AS at
  FROM llm_call c
 WHERE c.state = 'dead'
   AND NOT EXISTS (SELECT 1 FROM llm_call n
                    WHERE n.call_id = c.call_id AND n.generation > c.generation)
UNION ALL
SELECT 'stray', NULL, NULL, NULL, s.id, s.reason, NULL, s.at FROM unprocessable_message s;
