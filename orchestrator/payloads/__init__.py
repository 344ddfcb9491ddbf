"""The payload store, and the process on the service core that works on it."""
