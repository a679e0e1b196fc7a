"""One trial as GIF or MP4."""
