"""The engines: a file in this folder that registers itself is one."""
