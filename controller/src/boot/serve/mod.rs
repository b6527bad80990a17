//! The sockets: DHCP, TFTP, HTTP.
