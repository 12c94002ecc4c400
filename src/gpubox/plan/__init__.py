"""What will happen: a Profile and facts become a Plan, which is said in the words of others."""
