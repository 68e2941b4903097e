"""An example of a backend: it uses only `cluster`, as your own backend would. It is not in the wheel."""
