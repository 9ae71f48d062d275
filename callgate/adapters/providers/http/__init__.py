"""
What every provider over HTTP needs, whatever its dialect.

A second provider gets its own folder beside `openai` and uses these parts: `client` (connections, proxies, no cookies),
`request_body` (was anything sent?), `provider_loop` (its own event loop), `reply_bounds` and `decompression` (limits),
`failures` (exceptions of the HTTP libraries), `error_body`, `refusals` and `retry_after` (HTTP statuses),
`rate_limit_headers` (limits that a response names), and `safe_words` (what may be kept of an error). `environment`
checks proxies and addresses when a worker starts.
"""
