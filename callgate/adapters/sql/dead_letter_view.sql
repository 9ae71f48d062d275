-- dead_letter: everything callgate stopped trying, calls and stray messages alike.
CREATE VIEW dead_letter AS
SELECT 'call' AS kind, c.org_id, c.call_id, c.generation, NULL::bigint AS stray_id, c.error AS reason,
       c.error_fingerprint, c.created_at AS at
  FROM llm_call c WHERE c.state = 'dead'
UNION ALL
SELECT 'stray', NULL, NULL, NULL, s.id, s.reason, NULL, s.at FROM stray_message s;
