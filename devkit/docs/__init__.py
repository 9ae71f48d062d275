"""The pages of docs/ that are written from the code, and the site that is built of all of them."""
