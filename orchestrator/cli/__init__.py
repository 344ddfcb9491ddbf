"""The command line: parses, calls, renders. Decides nothing."""
