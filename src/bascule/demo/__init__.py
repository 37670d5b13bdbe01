"""A fleet, a load balancer and users on one machine, to see a deployment at work."""
