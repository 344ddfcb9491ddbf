"""Back ends of guests' devices: processes that are started on the service core, noted, found again and ended."""
