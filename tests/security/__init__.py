"""
Attacks by those who have some access: two tenants' logins, the broker's password, a provider, a page of Flower.

Each file is one attacker. A test shows that the attack fails, and that others' calls go on meanwhile. Workers run under
a limit of memory, so that one who eats it dies here as it would in production.
"""
