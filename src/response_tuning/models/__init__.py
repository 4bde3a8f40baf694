"""Models on disk: what a folder holds, and whether what was loaded of it is what it seems."""
