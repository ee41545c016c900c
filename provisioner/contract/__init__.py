"""What platform_api and the provisioner agree upon: the words, the spec, the queue's doorbell."""
