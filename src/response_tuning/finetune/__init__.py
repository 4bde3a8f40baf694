"""Stage 2, fine-tuning: examples and a base model become a Hugging Face model folder."""

from response_tuning.finetune.run import finetune

__all__ = ["finetune"]
