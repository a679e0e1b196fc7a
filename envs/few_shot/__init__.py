"""Few-shot classification and regression as tasks."""
