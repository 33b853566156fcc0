"""More than one process or machine, with Ray: the service as replicas, and folders of recordings in bulk. Extra ``ray``."""
