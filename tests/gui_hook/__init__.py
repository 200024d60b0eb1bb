"""gui-hook, the program that puts one line into the template of Proxmox's web interface, without dpkg."""
