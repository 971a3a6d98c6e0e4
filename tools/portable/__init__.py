"""`make bundle`: everything that another machine needs to serve, in one file."""
