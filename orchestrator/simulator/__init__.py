"""The simulator: the scheduler's decisions on a virtual clock and a fake hypervisor, to try a policy before use."""
