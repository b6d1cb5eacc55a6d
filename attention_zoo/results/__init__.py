"""What evaluations find: results that are written, read and compared, one module for each kind."""
