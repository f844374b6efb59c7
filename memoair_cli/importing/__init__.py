"""``memoair import``: import transcripts of earlier calls into a cloud or into this machine's memory.

files -> memoair_transcripts -> events (calls, ids, seqs) -> batches -> workers (threads) -> a target
                                              '-> ledger (what is acknowledged) -> state file
"""
