"""What auth libraries ask for, over any store: `Storage` and `SecondaryStorage`."""
