"""Libraries shared by all services; each knows nothing about any of them."""
