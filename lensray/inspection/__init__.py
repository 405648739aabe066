"""What people look at: colour composites, figures, and the report of a scan."""
