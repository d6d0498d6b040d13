"""What every room needs and none owns: errors, hashing, progress, atomic folders, environment records."""
