"""What Ray runs, where it runs it, and every private name of Ray that we use."""
