"""Tests that need much time, or programs of Debian's: `make test-system` installs them where it may."""
