"""A campaign of faults against everything that README promises: see README.md here."""
