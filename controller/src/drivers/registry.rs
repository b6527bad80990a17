//! Which implementation serves which hardware type.

use super::fake::Fake;
use super::ipmi::Ipmi;
use super::{ManagementInterface, PowerInterface};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The implementations of one hardware type.
#[derive(Clone)]
pub struct Hardware {
    pub power: Arc<dyn PowerInterface>,
    pub management: Arc<dyn ManagementInterface>,
}

/// All hardware types, by the name that `node.driver` holds.
#[derive(Clone, Default)]
pub struct Registry {
    types: BTreeMap<&'static str, Hardware>,
}

impl Registry {
    /// The hardware types of this program.
    pub fn new(ipmi: Ipmi) -> Registry {
        let ipmi = Arc::new(ipmi);
        let fake = Arc::new(Fake::default());
        Registry::default()
            .with("ipmi", Hardware { power: ipmi.clone(), management: ipmi })
            .with("fake-hardware", Hardware { power: fake.clone(), management: fake })
    }
    /// Adds or replaces a hardware type.
    pub fn with(mut self, name: &'static str, hardware: Hardware) -> Registry {
        self.types.insert(name, hardware);
        self
    }
    pub fn hardware(&self, driver: &str) -> Option<&Hardware> {
        self.types.get(driver)
    }
}
