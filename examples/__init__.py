"""Small programs that use callgate, example documents, and the code of a pipeline that extracts data from them."""
