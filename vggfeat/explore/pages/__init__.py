"""Pages to look at: pictures with their titles, laid out."""
