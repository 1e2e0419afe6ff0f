"""Give customers points for their completed orders."""
