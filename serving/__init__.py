"""TorchServe with a supervisor: checks before the start, true readiness, a clean stop."""
