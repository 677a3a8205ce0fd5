"""Identity: accounts, workspaces and the keys that act for them."""
