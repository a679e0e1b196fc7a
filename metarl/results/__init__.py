"""Results as files of rows, and statistics computed from them; nothing here imports torch."""
