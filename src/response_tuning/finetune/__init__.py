"""Stage 2, fine-tuning: examples and a base model become a Hugging Face model folder."""
