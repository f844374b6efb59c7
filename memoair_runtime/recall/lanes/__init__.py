"""The four lanes of recall. Each one gets the same query and answers independently."""
