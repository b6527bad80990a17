//! After the agent: process 1 hands the machine to its tenant for rescue, or cuts it off, as the agent ordered.

use super::supervise::Supervisor;
use super::{NETWORK, RUN, ssh};
use crate::logging;
use crate::platform::linux::handover::Handover;
use crate::platform::linux::netlink::Netlink;
use crate::platform::linux::process;
use std::io;

/// Carried out once the agent has ended: it is never started again in this boot.
pub fn carry_out(order: Handover, children: &mut Supervisor) {
    stop(children, RUN.name);
    // Port 22 is the tenant's now, and a locked machine has no doors.
    stop(children, ssh::SERVICE.name);
    match order {
        Handover::Rescue => {
            children.add(ssh::RESCUE);
            logging::say(
                "rescue: this machine is its tenant's now: log in by ssh as rescue with the rescue password. The agent stays \
                 down, addresses are asked for anew",
            );
        }
        Handover::Lockdown => {
            stop(children, NETWORK.name);
            logging::say(
                "lockdown: the agent stays down and the network is switched off until this machine is reset",
            );
            if let Err(error) = cut_off() {
                logging::say(&format!("lockdown: switching the network off failed: {error}"));
            }
        }
    }
}

fn stop(children: &mut Supervisor, name: &str) {
    if let Some(pid) = children.remove(name)
        && let Err(error) = process::stop(pid)
    {
        logging::say(&format!("{name}: stopping it failed: {error}"));
    }
}

/// Switches every link off; one that refuses does not keep the others on.
fn cut_off() -> io::Result<()> {
    let mut kernel = Netlink::open(0)?;
    let mut refused = Ok(());
    for link in kernel.links()? {
        if let Err(error) = kernel.set_down(link.index) {
            refused = Err(io::Error::new(error.kind(), format!("{}: {error}", link.name)));
        }
    }
    refused
}
