"""The database: tables, the SQLAlchemy engine, and migrations."""
