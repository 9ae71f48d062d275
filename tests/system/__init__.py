"""Tests that need programs of Debian's: `make test-system` installs them where it may."""
