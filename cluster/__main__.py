"""`python -m cluster` is `rayface`."""

from cluster.cli import main

main()
