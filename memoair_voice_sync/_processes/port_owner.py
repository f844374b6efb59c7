"""The owner of a port, for error messages."""

import psutil


def find_port_owner(port: int) -> str:
    """Describe the process that listens on a loopback port, as far as the system permits."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return "another process, which this user may not inspect"
    return "another process"
