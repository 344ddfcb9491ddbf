"""What is installed beside the program: manual pages, completions, systemd units, and a Debian package of all of it."""
