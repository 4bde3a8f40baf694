"""Models on disk: what a folder holds, and checks of what was loaded from it."""
