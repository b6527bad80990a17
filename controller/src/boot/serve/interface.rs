//! The interface that sockets are bound to may be made anew under its name: a bridge, a VLAN, a driver that was reloaded. The
//! kernel binds sockets to the one that was, so they hear nothing ever after.

use std::io;
use std::time::Duration;

/// Pause between looks.
const LOOK: Duration = Duration::from_secs(2);

/// An interface as it was when sockets were bound to it.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    index: u32,
}

impl Interface {
    /// Look before binding: one that is made anew in between is then noticed.
    pub(super) fn find(name: &str) -> io::Result<Interface> {
        Ok(Interface { name: name.to_owned(), index: nix::net::if_::if_nametoindex(name)? })
    }
    pub(super) fn index(&self) -> u32 {
        self.index
    }
    /// Waits for another interface of this name. While there is none, there is nothing to be bound to.
    pub(super) async fn remade(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = nix::net::if_::if_nametoindex(self.name.as_str());
            if now.is_ok_and(|index| index != self.index) {
                return;
            }
        }
    }
}
