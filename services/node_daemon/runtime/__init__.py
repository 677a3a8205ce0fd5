"""Ways to run one attempt on this machine, behind the port in `port.py`."""
