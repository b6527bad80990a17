//! Tags that switches name by LLDP: where they are asked for, each NIC is listened on until a switch has spoken, in a thread of its own.
//!
//! As in ironic-python-agent, the entries that count are those with the names of VLANs.

use crate::logging;
use crate::platform::linux::lldp as ears;
use crate::platform::linux::netlink::Link;
use ferric_common::formats::lldp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The driver whose cards keep LLDP for themselves until they are told not to.
const KEEPS_LLDP: &str = "i40e";
/// Between two looks at a NIC that nothing could be heard on.
const PAUSE: Duration = Duration::from_secs(5);

/// What was heard so far.
#[derive(Default)]
pub struct Told {
    heard: Arc<Mutex<BTreeMap<String, Vec<u16>>>>,
    /// Indexes of the NICs that were listened on.
    begun: BTreeSet<u32>,
}

impl Told {
    /// Begins to listen on each that is new. `patience`: silence after which the operator is told.
    pub fn listen(&mut self, links: &[&Link], patience: Duration) {
        for link in links {
            if self.begun.insert(link.index) {
                let (name, heard) = (link.name.clone(), Arc::clone(&self.heard));
                thread::spawn(move || listen(&name, patience, &heard));
            }
        }
    }

    /// What was heard since the last call: interfaces and their tags.
    pub fn news(&self) -> BTreeMap<String, Vec<u16>> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn listen(name: &str, patience: Duration, heard: &Mutex<BTreeMap<String, Vec<u16>>>) {
    ears::stop_firmware_agents(&keeper(name).into_iter().collect::<Vec<_>>());
    let mut has_complained = false;
    // Until the interface is gone.
    while let Some(has_carrier) = super::carrier(name) {
        if let Some(unit) = ears::hear(&[name.to_owned()], patience).remove(name) {
            let tags = lldp::vlans(&unit);
            logging::say(&format!("{name}: {}", words(&tags)));
            heard.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), tags);
            return;
        }
        if has_carrier && !has_complained {
            has_complained = true;
            logging::say(&format!(
                "{name}: no LLDP from a switch within {} s, so its tagged interfaces are not known; still listening",
                patience.as_secs()
            ));
        }
        thread::sleep(PAUSE);
    }
}

fn words(tags: &[u16]) -> String {
    match tags {
        [] => "the switch names no tags by LLDP, so no tagged interfaces are made".to_owned(),
        tags => {
            let tags: Vec<String> = tags.iter().map(u16::to_string).collect();
            format!("the switch names tags by LLDP: {}", tags.join(", "))
        }
    }
}

/// The PCI address of a card that keeps LLDP for itself.
fn keeper(name: &str) -> Option<String> {
    let device = Path::new("/sys/class/net").join(name).join("device");
    let last = |path: &Path| Some(fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned());
    last(&device).filter(|_| last(&device.join("driver")).as_deref() == Some(KEEPS_LLDP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_switch_said_is_put_in_words() {
        assert_eq!(words(&[100, 7]), "the switch names tags by LLDP: 100, 7");
        assert_eq!(words(&[]), "the switch names no tags by LLDP, so no tagged interfaces are made");
    }

    #[test]
    fn an_interface_that_is_gone_is_not_listened_on() {
        listen("no-such-link", Duration::from_secs(60), &Mutex::default());
    }
}
