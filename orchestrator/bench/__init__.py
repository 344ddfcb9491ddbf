"""Timing harnesses: the same decision code as in service, on synthetic hosts, with its cost measured."""
