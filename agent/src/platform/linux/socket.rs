//! Socket options that the standard library does not offer.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Lets the kernel gather `bytes` before it wakes a reader of this socket (SO_RCVLOWAT, socket(7)). A hint: where it
/// fails, the reader wakes for every packet.
#[allow(unsafe_code)]
pub fn wake_at(stream: &TcpStream, bytes: u64) {
    let value = libc::c_int::try_from(bytes).unwrap_or(1);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an int that lives until the call returns, and the length is that of an int.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            length,
        )
    };
    if result != 0 {
        tracing::debug!("SO_RCVLOWAT: {}", std::io::Error::last_os_error());
    }
}
