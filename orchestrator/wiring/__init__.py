"""Puts the adapters of `host/` behind the ports: the only package that names both them and the engine.

Heavy imports stay inside the functions that need them: the command line must answer at once.
"""
