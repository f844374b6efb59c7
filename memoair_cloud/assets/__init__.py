"""Style sheets and scripts, of our own and vendored, which the server serves itself: nothing comes from other hosts."""
