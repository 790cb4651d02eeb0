"""Pages of pictures with titles, laid out for viewing."""
