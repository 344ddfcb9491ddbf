"""Values and decisions. No effects live here: no os, time, asyncio, sqlite3, libvirt, qemu or logging."""
