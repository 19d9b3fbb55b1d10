"""What an operator and a request may set: data, and the rules over it."""
