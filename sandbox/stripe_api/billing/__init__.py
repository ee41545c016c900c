"""What is billed and what becomes of it. Pure: every function reads and writes a Decision, at a Moment."""
