"""What will happen: a Profile and facts become a Plan, and a Plan the words of other tools."""
