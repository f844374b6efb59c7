"""``memoair import``: what was said in earlier calls, from files into a cloud or into this machine's runtimes.

files -> memoair_voice_sync.transcripts -> events (calls, ids, seqs) -> batches -> lanes (threads) -> a target
                                              '-> ledger (what is acknowledged) -> state file
"""
