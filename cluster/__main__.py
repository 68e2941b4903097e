"""`python -m cluster` is `rayface`."""

from cluster.cli.entry import main

main()
