"""What the system allows this process."""

import resource


def raise_open_files() -> int:
    """Raise the soft limit of open files, often 1,024, to the hard one; returns what then holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or (soft != resource.RLIM_INFINITY and hard == resource.RLIM_INFINITY):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
