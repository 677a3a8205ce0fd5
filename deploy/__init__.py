"""How the grid is set up, put together and started."""
