"""The version of callgate: `.dev0` until it is released (CONTRIBUTING.md, "Release")."""

__version__ = "0.2.0.dev0"
