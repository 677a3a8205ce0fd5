"""Order, fairness, which GPUs, why not, and when. See README.md."""
