"""Who has the space of a storage: what each guest, image and snapshot holds, with whom, and what deleting it frees."""
