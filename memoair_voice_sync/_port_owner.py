"""Who holds a port: for the message that says so."""

import psutil


def find_port_owner(port: int) -> str:
    """Name the process that listens on a loopback port, as far as the system tells."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return "another process, which the system does not let us see"
    return "another process"
