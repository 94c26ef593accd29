"""The models, a folder for each family, behind the one interface of `models.interface`."""
