"""The panel in a real browser, on real ExtJS, with test doubles for Proxmox's own classes and a small server for its API."""
