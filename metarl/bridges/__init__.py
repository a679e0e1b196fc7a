"""To and from other libraries: Gymnasium and stable-baselines3."""
