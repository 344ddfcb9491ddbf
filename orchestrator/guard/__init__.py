"""The guard: the emergency console, in a process of its own, which reaches guests without the scheduler."""
