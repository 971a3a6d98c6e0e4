"""TorchServe with a supervisor: checks before the start, the truth about readiness, a clean end."""
