"""A backup of what it takes to find the images on a disk whose file system is gone."""
