"""Write the pages of docs/ that come from the code: `make pages`."""

from devkit.docs.pages import write

if __name__ == "__main__":
    write()
