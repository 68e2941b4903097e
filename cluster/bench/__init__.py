"""`rayface bench`: puts load on a cluster, measures until it is steady, and says what the limit is."""
