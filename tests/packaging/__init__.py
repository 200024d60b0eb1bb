"""The Debian package: built, installed, upgraded and removed in a clean chroot."""
