"""The benchmarks: one file each, found by being here."""
