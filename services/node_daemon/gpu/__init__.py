"""Where the daemon learns which GPUs this machine has."""
