//! The collectors by name, and the report that they fill.

use crate::commands::log;
use crate::config::Inspection;
use crate::disk::choose;
use crate::inventory::{Roots, dmi, numa, pci, usb};
use crate::platform::machine::Machine;
use ferric_common::formats::lldp;
use ferric_common::wire::inventory::Inventory;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

pub const DEFAULT: &str = "default";
pub const LLDP: &str = "lldp";
/// The driver whose cards keep LLDP for themselves.
const KEEPS_LLDP: &str = "i40e";

/// By interface: `[[type, "value in hexadecimal"], …]`.
pub type Lldp = BTreeMap<String, Value>;

type Collect = fn(&mut Work<'_>);

const COLLECTORS: &[(&str, Collect)] = &[
    (DEFAULT, default),
    ("logs", logs),
    (LLDP, lldp_raw),
    ("pci-devices", pci_devices),
    ("numa-topology", numa_topology),
    ("dmi-decode", dmi_decode),
    ("usb-devices", usb_devices),
    ("extra-hardware", extra_hardware),
];

/// What is posted: the collectors' keys, and what went wrong.
#[derive(Debug, Default)]
pub struct Report {
    data: Map<String, Value>,
    failures: Vec<String>,
}

impl Report {
    /// Nothing was collected.
    pub fn refused(why: String) -> Report {
        Report { data: Map::new(), failures: vec![why] }
    }
    fn fail(&mut self, what: impl Display) {
        tracing::warn!("inspection: {what}");
        self.failures.push(what.to_string());
    }
    /// In the form in which the reference agent reports them.
    pub fn failures(&self) -> Option<String> {
        let lines = self.failures.iter().map(|line| format!("* {line}")).collect::<Vec<_>>().join("\n");
        (!lines.is_empty()).then(|| format!("The following errors were encountered:\n{lines}"))
    }
    pub fn into_body(mut self) -> String {
        let error = self.failures().map_or(Value::Null, Value::String);
        self.data.insert("error".to_owned(), error);
        Value::Object(self.data).to_string()
    }
}

struct Work<'a> {
    machine: &'a dyn Machine,
    roots: &'a Roots,
    settings: &'a Inspection,
    managers: Value,
    lldp: Option<Lldp>,
    report: Report,
}

impl Work<'_> {
    fn put(&mut self, key: &str, value: impl serde::Serialize) {
        match serde_json::to_value(value) {
            Ok(value) => drop(self.report.data.insert(key.to_owned(), value)),
            Err(error) => self.report.fail(format_args!("writing {key}: {error}")),
        }
    }
}

/// Words about the first name that is no collector.
pub fn unknown(names: &[String]) -> Option<String> {
    let known = |name: &str| COLLECTORS.iter().any(|(collector, _)| *collector == name);
    let name = names.iter().find(|name| !known(name))?;
    let all = COLLECTORS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    Some(format!("there is no inspection collector '{name}'; this agent has {all}"))
}

/// Runs the collectors in the order asked for. Blocks.
pub fn collect(
    machine: &dyn Machine,
    roots: &Roots,
    settings: &Inspection,
    managers: Value,
    lldp: Option<Lldp>,
) -> Report {
    let mut work = Work { machine, roots, settings, managers, lldp, report: Report::default() };
    for name in &settings.collectors {
        if let Some((_, collect)) = COLLECTORS.iter().find(|(collector, _)| collector == name) {
            collect(&mut work);
        }
    }
    work.report
}

/// What switches say about themselves to this machine's interfaces. Blocks up to `wait`.
pub fn listen(machine: &dyn Machine, wait: Duration) -> Lldp {
    let interfaces = machine.inventory().interfaces;
    let keepers: Vec<String> = interfaces
        .iter()
        .filter(|nic| nic.driver.as_deref() == Some(KEEPS_LLDP))
        .filter_map(|nic| nic.pci_address.clone())
        .collect();
    let names: Vec<String> = interfaces.into_iter().map(|nic| nic.name).collect();
    let heard = machine.hear_lldp(&names, &keepers, wait);
    let of = |name: String| {
        let unit = heard.get(&name).map(Vec::as_slice).unwrap_or_default();
        if unit.is_empty() {
            tracing::info!("inspection: no LLDP heard on {name} within {} s", wait.as_secs());
        }
        let entry = |tlv: lldp::Tlv<'_>| json!([tlv.kind, hex(tlv.value)]);
        (name, lldp::tlvs(unit).into_iter().map(entry).collect())
    };
    names.into_iter().map(of).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn default(work: &mut Work<'_>) {
    let inventory = inventory(work);
    match work.machine.disks() {
        Ok(disks) => match choose::root_disk(&Map::new(), &Map::new(), &disks) {
            Ok(root) => work.put("root_disk", root.disk),
            Err(error) => tracing::warn!("inspection: no root disk: {error}"),
        },
        Err(error) => work.report.fail(format_args!("listing the disks of this machine: {error}")),
    }
    work.put("boot_interface", inventory.boot.pxe_interface.clone());
    work.put("inventory", inventory);
    let managers = work.managers.as_object().cloned().unwrap_or_default();
    let managers: Vec<Value> =
        managers.into_iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
    work.put("configuration", json!({"collectors": work.settings.collectors, "managers": managers}));
}

fn inventory(work: &Work<'_>) -> Inventory {
    let mut inventory = work.machine.inventory();
    let bmc = work.machine.bmc();
    inventory.bmc_address = bmc.address;
    inventory.bmc_v6address = bmc.v6address;
    inventory.bmc_mac = bmc.mac;
    if let Some(lldp) = work.lldp.as_ref().filter(|_| work.settings.collect_lldp) {
        for nic in &mut inventory.interfaces {
            nic.lldp = lldp.get(&nic.name).cloned();
        }
    }
    inventory
}

fn logs(work: &mut Work<'_>) {
    // As upstream: what the logs lack is no reason to fail.
    match log::packed(work.machine) {
        Ok(archive) => work.put("logs", archive),
        Err(error) => tracing::warn!("inspection: packing the logs: {error}"),
    }
}

fn lldp_raw(work: &mut Work<'_>) {
    work.put("lldp_raw", work.lldp.clone().unwrap_or_default());
}

fn pci_devices(work: &mut Work<'_>) {
    match pci::list(&work.roots.sys) {
        Ok(devices) => work.put("pci_devices", devices),
        Err(error) => work.report.fail(format_args!("listing the PCI devices: {error}")),
    }
}

fn numa_topology(work: &mut Work<'_>) {
    match numa::read(&work.roots.sys) {
        Ok(Some(topology)) => work.put("numa_topology", topology),
        Ok(None) => tracing::info!("inspection: this kernel has no NUMA support"),
        Err(words) => tracing::warn!("inspection: {words}; the NUMA topology is left out"),
    }
}

fn dmi_decode(work: &mut Work<'_>) {
    match dmi::read(&work.roots.sys) {
        Some(dmi) => work.put("dmi", dmi),
        None => work.report.fail("this machine has no SMBIOS tables for the collector dmi-decode"),
    }
}

fn usb_devices(work: &mut Work<'_>) {
    work.put("usb_devices", usb::list(&work.roots.sys));
}

fn extra_hardware(work: &mut Work<'_>) {
    work.report.fail(
        "the collector extra-hardware is not in this agent: it is a Python program of its own; take it out of \
         ipa-inspection-collectors",
    );
}
