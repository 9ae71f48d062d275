"""Stand-in."""


def connect_stray_handlers(app, sink) -> None:  # type: ignore[no-untyped-def]
    """Connect."""
