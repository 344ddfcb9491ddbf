"""A host in memory behind every port. What goes wrong in it is data (`Faults`); nothing is patched."""
