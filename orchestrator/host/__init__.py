"""Effects: one module for each outside thing, none importing another."""
