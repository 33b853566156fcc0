"""``dinle loadtest``: what a service can carry, under load that Locust makes."""
