"""Whether the forward proxy decides: a host that nobody may reach has to be refused. For the image's HEALTHCHECK.

Nothing is resolved and nothing leaves the machine: squid asks its helper, which knows no such host. Standard library
only.
"""

import http.client
import sys

SECONDS = 4
REFUSED = 403


def main() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=SECONDS)
    try:
        connection.request("GET", "http://health.invalid/")
        return 0 if connection.getresponse().status == REFUSED else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
