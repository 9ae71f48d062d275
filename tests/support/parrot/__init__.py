"""A made-up protocol, as docs/howto/add-a-provider.md builds it. Its dialect only: the rest is in `providers/http`."""

ADAPTER = ("parrot_adapter", "ParrotAdapter")
