"""Who is in the picture: duplicates, people recovered from pixels, who is on both sides."""
