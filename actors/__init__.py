"""Who answers: photos in, faces out. Knows no Ray, and imports nothing from `cluster` or `app`."""
