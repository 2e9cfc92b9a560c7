"""Text, images and language models behind small protocols."""
