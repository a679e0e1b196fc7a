"""Who is measured, in which tasks, and how."""
