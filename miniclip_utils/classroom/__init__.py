"""What only the lessons use. Nothing in the package's core imports it."""
