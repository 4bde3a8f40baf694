"""Response Tuning: a base language model becomes an assistant from responses alone."""
