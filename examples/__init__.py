"""Example documents, and a pipeline's code to extract data from them."""
