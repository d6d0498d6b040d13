"""What each section of the page shows, taken from the document: words and pictures, no HTML of its own."""
