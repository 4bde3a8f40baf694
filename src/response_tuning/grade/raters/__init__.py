"""Studies that people rate in the browser, blind."""
