"""What a run leaves on disk, and how it is read and written: below the command line, which is one of its users."""
