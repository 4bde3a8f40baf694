"""What a base model can do before tuning, and what tuning changed."""
