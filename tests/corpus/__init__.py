"""Pictures of many kinds, good and bad ones, whose outcome is known from how each was made."""
