"""Few-shot classification and few-shot regression."""
