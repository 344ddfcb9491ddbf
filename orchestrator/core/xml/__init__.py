"""libvirt domain XML: rendered from one small part per concern, and judged."""
