"""`make up`: the grid on this machine, its first job, and a plain story of both on the terminal."""
