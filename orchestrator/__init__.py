"""Orchestrator: schedules QEMU guests on the pool cores of one libvirt host."""
