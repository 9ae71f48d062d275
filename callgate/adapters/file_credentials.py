"""Stand-in."""


class FileCredentials:
    def __init__(self, keys, folder):
        self.keys = keys

    def api_key(self, provider, org_id):
        k = self.keys.get(f"{provider}.{org_id}") or self.keys.get(provider)
        return k.get_secret_value() if k else None
