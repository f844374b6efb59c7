"""What is said: sessions, the turns in them, who is calling, and the keeper of it all."""
