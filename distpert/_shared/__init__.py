"""Labels, symbols, checks of arguments, and files: what all packages use."""
