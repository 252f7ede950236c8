"""What a turn is: its rules, its context, its life. Knows stores, models and tools by protocols."""
