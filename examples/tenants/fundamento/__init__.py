"""Voice agents for three customers: Fundamento's own side of the multi-tenant guide."""
