"""Tenancy: accounts, API keys, projects, and the scope that confines every statement to one account and project."""
