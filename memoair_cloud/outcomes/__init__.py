"""Outcomes of calls, as applications report them."""
