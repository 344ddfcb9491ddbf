"""The lab: boots a nested host and runs a command in it."""
