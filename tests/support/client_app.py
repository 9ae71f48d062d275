"""Callgate's own app, where `celery -A` finds it."""

from callgate import Client

app = Client.from_env().celery_app
