"""What a turn is: its rules, its context, its life. Knows stores and models by their ports."""
