"""Real guests inside the nodes: QEMU emulates them there (TCG), their disks are volumes of the storage under test."""
