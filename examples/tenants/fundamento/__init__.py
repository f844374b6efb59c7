"""Voice agents for three customers: the multi-tenant guide as a program, from the side of the agency Fundamento."""
