"""Labels, symbols, arguments and files: what every room uses."""
