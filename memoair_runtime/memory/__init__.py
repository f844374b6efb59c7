"""What is known of one user: sessions, turns, facts and profile, in memory and on the disk."""
