"""What goes to the cloud and comes from it: push, pull, and the one thread that does both behind the requests."""
