"""The second process: it makes log records, metrics and serial logs durable on the service core.

The scheduler gives it messages through a socket (`client`) and never waits for it. Nothing here decides anything.
"""
