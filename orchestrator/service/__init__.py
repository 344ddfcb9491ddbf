"""`orchestrator serve` as others see it: HTTP over a Unix socket, whose callers the kernel names. No adapter here."""
