"""What an operator and a request may set: the data, and the rules for it."""
