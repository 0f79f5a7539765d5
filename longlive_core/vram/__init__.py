"""What a film takes of a card, planned before it starts."""
