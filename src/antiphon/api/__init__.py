"""Ways in over a network. They decode, call the service, encode, and nothing else."""
