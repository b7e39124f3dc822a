"""Poses of people's own photos: found, read from other programs' files, framed, smoothed."""
