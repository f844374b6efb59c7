"""The pool: a bounded number of runtimes, one for each user, and the thread that supervises them."""
