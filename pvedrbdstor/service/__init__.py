"""The JSON-RPC face for Proxmox: requests, deadlines, worker processes."""
