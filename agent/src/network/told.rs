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
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The driver whose cards keep LLDP for themselves until they are told not to.
const KEEPS_LLDP: &str = "i40e";
/// Between two looks at a NIC that nothing could be heard on.
const PAUSE: Duration = Duration::from_secs(5);

/// What was heard so far.
#[derive(Default)]
pub struct Told {
    heard: Arc<Mutex<BTreeMap<String, Vec<u16>>>>,
    /// The NICs that were listened on, by index.
    begun: BTreeMap<u32, JoinHandle<()>>,
}

impl Told {
    /// Begins to listen on each that is new. `patience`: silence after which the operator is told.
    pub fn listen(&mut self, links: &[&Link], patience: Duration) {
        for link in links {
            self.begun.entry(link.index).or_insert_with(|| {
                let (name, heard) = (link.name.clone(), Arc::clone(&self.heard));
                thread::spawn(move || listen(&name, patience, &heard))
            });
        }
    }

    /// Whether anything may still be heard, other than what waits for [`Told::news`].
    pub fn is_listening(&self) -> bool {
        self.begun.values().any(|listener| !listener.is_finished())
    }

    /// What was heard since the last call: interfaces and their tags.
    pub fn news(&self) -> BTreeMap<String, Vec<u16>> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn listen(name: &str, patience: Duration, heard: &Mutex<BTreeMap<String, Vec<u16>>>) {
    let keepers: Vec<String> = keeper(name).into_iter().collect();
    for failed in ears::stop_firmware_agents(&keepers) {
        logging::say(&format!("{name}: {failed}"));
    }
    let mut said = BTreeSet::new();
    // Until the interface is gone.
    while let Some(has_carrier) = super::carrier(name) {
        let began = Instant::now();
        let mut now = ears::hear(&[name.to_owned()], patience);
        if let Some(unit) = now.units.remove(name) {
            let tags = lldp::vlans(&unit);
            logging::say(&format!("{name}: {}", words(&tags)));
            heard.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), tags);
            return;
        }
        for text in complaints(now.failed, has_carrier && began.elapsed() >= patience, patience) {
            if super::carrier(name).is_some() && said.insert(text.clone()) {
                logging::say(&format!(
                    "{name}: {text}; its tagged interfaces are not known; still listening"
                ));
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Why nothing was heard: what failed, or that there was nothing in all the time that a switch is given.
fn complaints(failed: Vec<String>, is_silent: bool, patience: Duration) -> Vec<String> {
    match (failed.is_empty(), is_silent) {
        (true, true) => vec![format!("no LLDP from a switch within {} s", patience.as_secs())],
        _ => failed,
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
    fn silence_is_only_said_where_a_switch_had_all_its_time_and_nothing_failed() {
        let (failed, patience) = (|| vec!["listening failed".to_owned()], Duration::from_secs(30));
        assert_eq!(complaints(vec![], true, patience), ["no LLDP from a switch within 30 s"]);
        assert_eq!(complaints(vec![], false, patience), [""; 0]);
        assert_eq!(complaints(failed(), false, patience), failed());
        assert_eq!(complaints(failed(), true, patience), failed());
    }

    #[test]
    fn nobody_listens_any_longer_when_each_switch_has_spoken() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let listener = thread::spawn(move || ended.recv().unwrap_or_default());
        let told = Told { begun: BTreeMap::from([(2, listener)]), ..Told::default() };
        assert!(told.is_listening() && !Told::default().is_listening());
        drop(end);
        while told.is_listening() {
            thread::yield_now();
        }
    }

    #[test]
    fn an_interface_that_is_gone_is_not_listened_on() {
        listen("no-such-link", Duration::from_secs(60), &Mutex::default());
    }
}
