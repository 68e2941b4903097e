"""`python -m cluster` is `rayface`."""

from cluster.cli.main import main

main()
