"""Pictures, drawn from rows alone; nothing here imports torch."""
