"""What the SDK, the runtime, the cloud and the command line share: names, limits, errors and small tools.

It needs nothing but the standard library, and imports quickly: the SDK imports it. The exception is `cloud_http`, which
needs ``requests`` and is imported with the first request. A thing belongs here only if two packages use it.
"""
