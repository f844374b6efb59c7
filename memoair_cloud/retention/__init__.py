"""How long data is kept: periods that a project sets, and legal holds that override them."""
