"""What is in prepared data: figures, repeats and a page to read."""
