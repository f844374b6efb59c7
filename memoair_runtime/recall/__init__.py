"""What is remembered: the lanes, the sweep through them, and the text composed of what they found."""
