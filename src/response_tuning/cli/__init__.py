"""The shell: flags become settings, and ``workflows/`` does the rest."""
