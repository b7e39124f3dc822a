"""A trained generator on people's own photos and poses."""
