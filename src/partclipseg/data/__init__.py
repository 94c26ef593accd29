"""Read data sets from files as samples and batches."""
