"""Who makes it happen: the Docker Engine, or Podman's service that speaks like one."""
