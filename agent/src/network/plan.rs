//! Which interfaces are made and how each is served: kernel parameters and `network_data.json` in, steps out. Pure.

use super::network_data::{Fixed, Kind, Settings};
use crate::platform::linux::netlink::{Bond, Link};
use ferric_common::ids::MacAddress;

/// Names are at most 15 bytes (IFNAMSIZ).
const NAME: usize = 15;
/// Tagged interfaces that are made.
pub const VLANS: usize = 64;
const PARAMETER: &str = "ipa-enable-vlan-interfaces=";

/// On which interface, and which tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    pub on: On,
    pub id: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    Name(String),
    Mac(MacAddress),
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub vlans: Vec<Vlan>,
    /// Where the tags are those that a switch names by LLDP.
    pub by_lldp: ByLldp,
    /// Set: nothing else gets an address.
    pub fixed: Option<Fixed>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByLldp {
    /// Every NIC.
    pub all: bool,
    pub on: Vec<On>,
}

impl Plan {
    /// Takes the tags that a switch named on an interface; answers, in words, how many are too many.
    pub fn hear(&mut self, name: &str, tags: &[u16]) -> Option<String> {
        let mut left_out = 0_usize;
        for id in tags {
            let vlan = Vlan { on: On::Name(name.to_owned()), id: *id };
            match self.vlans.len() < VLANS {
                _ if self.vlans.contains(&vlan) => {}
                true => self.vlans.push(vlan),
                false => left_out = left_out.saturating_add(1),
            }
        }
        (left_out > 0).then(|| {
            format!("{name}: {left_out} of the tags are left out: {VLANS} tagged interfaces are the most")
        })
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Vlan { parent: u32, name: String, id: u16 },
    Bond { name: String, bond: Bond },
    Join { member: u32, bond: u32, name: String },
    Serve { index: u32, how: How },
}

#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// DHCP, router advertisements, DHCPv6.
    Dynamic,
    Fixed(Settings),
    /// Switched on, and no more.
    Off,
}

/// Reads `ipa-enable-vlan-interfaces`: `eth0.100` and `aa:bb:cc:dd:ee:ff.100` name the tag, `eth0`, `aa:bb:cc:dd:ee:ff` and `all` leave
/// it to LLDP, with commas; the last one counts. Answers what cannot be done in words.
pub fn vlans(command_line: &str) -> (Vec<Vlan>, ByLldp, Vec<String>) {
    let given = command_line.split_whitespace().filter_map(|word| word.strip_prefix(PARAMETER)).next_back();
    let (mut found, mut by_lldp, mut refused) = (Vec::new(), ByLldp::default(), Vec::new());
    for part in given.unwrap_or_default().split(',').filter(|part| !part.is_empty()) {
        match (part.rsplit_once('.'), on(part)) {
            (None, _) if part == "all" => by_lldp.all = true,
            (None, Some(on)) if by_lldp.on.len() < VLANS => by_lldp.on.push(on),
            (Some((parent, id)), _) if found.len() < VLANS && vlan(parent, id).is_some() => {
                found.extend(vlan(parent, id));
            }
            _ => refused.push(format!(
                "ipa-enable-vlan-interfaces: '{}' is skipped: say INTERFACE.ID or MAC.ID with an ID of 1 to 4094, or \
                 INTERFACE, MAC or all for the IDs that a switch names by LLDP",
                part.chars().filter(|c| !c.is_control()).take(40).collect::<String>()
            )),
        }
    }
    (found, by_lldp, refused)
}

fn vlan(parent: &str, id: &str) -> Option<Vlan> {
    let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
    Some(Vlan { on: on(parent)?, id })
}

fn on(text: &str) -> Option<On> {
    match text.parse() {
        Ok(mac) => Some(On::Mac(mac)),
        Err(_) if (1..=NAME).contains(&text.len()) => Some(On::Name(text.to_owned())),
        Err(_) => None,
    }
}

/// The NICs on which a switch is to name the tags.
pub fn listeners<'l>(links: &'l [Link], plan: &Plan, is_nic: impl Fn(&Link) -> bool) -> Vec<&'l Link> {
    let wants = |link: &&Link| plan.by_lldp.all || plan.by_lldp.on.iter().any(|on| is_on(link, on));
    let nics = links.iter().filter(|link| plan.fixed.is_none() && is_nic(link));
    nics.filter(wants).collect()
}

fn is_on(link: &Link, on: &On) -> bool {
    match on {
        On::Name(name) => link.name == *name,
        On::Mac(mac) => is_of(link, *mac),
    }
}

/// What to do now that the kernel lists `links`. Called again whenever the list changed: steps whose parts are not there yet come
/// later, and [`Step::Serve`] of what is served already is for the caller to leave out.
pub fn next(links: &[Link], plan: &Plan, is_nic: impl Fn(&Link) -> bool) -> Vec<Step> {
    match &plan.fixed {
        Some(fixed) => fixed_steps(links, fixed, is_nic),
        None => dynamic_steps(links, &plan.vlans, is_nic),
    }
}

fn dynamic_steps(links: &[Link], vlans: &[Vlan], is_nic: impl Fn(&Link) -> bool) -> Vec<Step> {
    let nics: Vec<&Link> = links.iter().filter(|link| is_nic(link)).collect();
    let serve = |link: &Link| Step::Serve { index: link.index, how: How::Dynamic };
    let mut steps: Vec<Step> = nics.iter().map(|link| serve(link)).collect();
    for vlan in vlans {
        let Some(parent) = nics.iter().find(|link| is_on(link, &vlan.on)) else { continue };
        let name = vlan_name(&parent.name, vlan.id);
        steps.push(match links.iter().find(|link| link.name == name) {
            Some(made) => serve(made),
            None => Step::Vlan { parent: parent.index, name, id: vlan.id },
        });
    }
    steps
}

fn fixed_steps(links: &[Link], fixed: &Fixed, is_nic: impl Fn(&Link) -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut known = Vec::new();
    for (place, wanted) in fixed.links.iter().enumerate() {
        let Some(link) = present(links, fixed, place, &mut steps) else { continue };
        known.push(link.index);
        if link.master.is_none() && !is_member(fixed, &wanted.id) {
            let how = How::Fixed(wanted.settings.clone());
            steps.push(Step::Serve { index: link.index, how });
        }
    }
    let others = links.iter().filter(|link| is_nic(link) && !known.contains(&link.index));
    steps.extend(others.map(|link| Step::Serve { index: link.index, how: How::Off }));
    steps
}

/// The kernel's link for one of the medium; steps that make it where it is missing and can be made.
fn present<'l>(links: &'l [Link], fixed: &Fixed, place: usize, steps: &mut Vec<Step>) -> Option<&'l Link> {
    let wanted = fixed.links.get(place)?;
    let by_name = |name: &str| links.iter().find(|link| link.name == name);
    match &wanted.kind {
        // A member of a bond carries the bond's address; its own stays with it.
        Kind::Nic(mac) => links
            .iter()
            .find(|link| is_of(link, *mac) && !link.name.contains('.') && !is_made(fixed, &link.name)),
        Kind::Vlan { on, id } => {
            let parent = name_of(links, fixed, on)?;
            let name = vlan_name(&parent.name, *id);
            let made = by_name(&name);
            if made.is_none() {
                steps.push(Step::Vlan { parent: parent.index, name, id: *id });
            }
            made
        }
        Kind::Bond { members, bond } => {
            let name = bond_name(&wanted.id, place);
            let Some(made) = by_name(&name) else {
                steps.push(Step::Bond { name, bond: *bond });
                return None;
            };
            let parts = members.iter().filter_map(|member| name_of(links, fixed, member));
            let joins = parts.filter(|part| part.master != Some(made.index));
            steps.extend(joins.map(|part| Step::Join {
                member: part.index,
                bond: made.index,
                name: part.name.clone(),
            }));
            Some(made)
        }
    }
}

fn name_of<'l>(links: &'l [Link], fixed: &Fixed, id: &str) -> Option<&'l Link> {
    let place = fixed.links.iter().position(|link| link.id == id)?;
    match &fixed.links.get(place)?.kind {
        Kind::Vlan { .. } => None,
        Kind::Nic(_) => present(links, fixed, place, &mut Vec::new()),
        Kind::Bond { .. } => links.iter().find(|link| link.name == bond_name(id, place)),
    }
}

fn is_member(fixed: &Fixed, id: &str) -> bool {
    fixed
        .links
        .iter()
        .any(|link| matches!(&link.kind, Kind::Bond { members, .. } if members.iter().any(|m| m == id)))
}

fn is_made(fixed: &Fixed, name: &str) -> bool {
    let bond = |(place, link): (usize, &super::network_data::FixedLink)| {
        matches!(link.kind, Kind::Bond { .. }) && bond_name(&link.id, place) == name
    };
    fixed.links.iter().enumerate().any(bond)
}

fn is_of(link: &Link, mac: MacAddress) -> bool {
    link.permanent.or(link.mac) == Some(mac) || link.mac == Some(mac)
}

fn vlan_name(parent: &str, id: u16) -> String {
    let parent: String = parent.chars().take(NAME - 5).collect();
    format!("{parent}.{id}")
}

/// Its own name where the kernel would take it.
fn bond_name(id: &str, place: usize) -> String {
    let good = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if good && !id.is_empty() && id.len() <= NAME - 5 { id.to_owned() } else { format!("bond{place}") }
}

#[cfg(test)]
mod tests {
    use super::super::network_data;
    use super::*;

    fn link(index: u32, name: &str, last: u8) -> Link {
        Link {
            index,
            name: name.into(),
            hardware: 1,
            mac: Some(MacAddress([2, 0, 0, 0, 0, last])),
            permanent: None,
            up: false,
            carrier: false,
            mtu: 1500,
            master: None,
        }
    }

    fn is_nic(link: &Link) -> bool {
        link.name.starts_with("eth") && !link.name.contains('.')
    }

    #[test]
    fn tagged_interfaces_are_asked_for_by_name_and_by_mac() {
        let (found, by_lldp, refused) = vlans(
            "ipa-enable-vlan-interfaces=x.1 a ipa-enable-vlan-interfaces=eth0.100,02:00:00:00:00:02.7,eth0.4095,,a-name-that-is-long",
        );
        let mac = MacAddress([2, 0, 0, 0, 0, 2]);
        assert_eq!(found, [Vlan { on: On::Name("eth0".into()), id: 100 }, Vlan { on: On::Mac(mac), id: 7 }]);
        assert_eq!(refused.len(), 2);
        assert!(
            refused[0].starts_with("ipa-enable-vlan-interfaces: 'eth0.4095' is skipped: say INTERFACE.ID"),
            "{refused:?}"
        );
        assert_eq!(by_lldp, ByLldp::default());
        assert_eq!(vlans("quiet"), (vec![], ByLldp::default(), vec![]));
    }

    #[test]
    fn tags_that_a_switch_names_are_made_where_they_were_asked_for() {
        let (vlans, by_lldp, refused) = vlans("ipa-enable-vlan-interfaces=eth0,eth1.5,02:00:00:00:00:02");
        assert_eq!(refused, [""; 0]);
        let mut plan = Plan { vlans, by_lldp, fixed: None };
        let links = vec![link(2, "eth0", 1), link(3, "eth1", 2), link(4, "eth2", 3), link(1, "lo", 0)];
        let listened = |plan: &Plan| {
            let on = listeners(&links, plan, is_nic).into_iter().map(|link| link.name.clone());
            on.collect::<Vec<_>>()
        };
        assert_eq!(listened(&plan), ["eth0", "eth1"]);
        let all = Plan { by_lldp: ByLldp { all: true, on: vec![] }, ..Plan::default() };
        assert_eq!(listened(&all), ["eth0", "eth1", "eth2"]);
        let data = br#"{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "02:00:00:00:00:01"}],
            "networks": [{"id": "n", "type": "ipv4", "link": "a", "ip_address": "192.0.2.5/24"}]}"#;
        let fixed = Plan { fixed: Some(network_data::parse(data).unwrap()), ..all };
        assert_eq!(listened(&fixed), [""; 0]);

        assert_eq!(plan.hear("eth0", &[100, 7]), None);
        assert_eq!(plan.hear("eth1", &[5, 5]), None);
        let made: Vec<Step> = next(&links, &plan, is_nic)
            .into_iter()
            .filter(|step| matches!(step, Step::Vlan { .. }))
            .collect();
        let vlan = |parent, name: &str, id| Step::Vlan { parent, name: name.into(), id };
        assert_eq!(made, [vlan(3, "eth1.5", 5), vlan(2, "eth0.100", 100), vlan(2, "eth0.7", 7)]);
        let many: Vec<u16> = (1..=99).collect();
        let said = plan.hear("eth2", &many).unwrap();
        assert_eq!(
            (plan.vlans.len(), said.as_str()),
            (VLANS, "eth2: 38 of the tags are left out: 64 tagged interfaces are the most")
        );
    }

    #[test]
    fn a_tagged_interface_is_made_once_its_parent_is_there_and_then_served() {
        let vlans = vec![Vlan { on: On::Name("eth0".into()), id: 100 }];
        let plan = Plan { vlans, ..Plan::default() };
        assert!(next(&[], &plan, is_nic).is_empty());
        let mut links = vec![link(2, "eth0", 1), link(1, "lo", 0)];
        let parent = Step::Serve { index: 2, how: How::Dynamic };
        let made = Step::Vlan { parent: 2, name: "eth0.100".into(), id: 100 };
        assert_eq!(next(&links, &plan, is_nic), [parent.clone(), made]);
        links.push(link(5, "eth0.100", 1));
        assert_eq!(next(&links, &plan, is_nic), [parent, Step::Serve { index: 5, how: How::Dynamic }]);
    }

    #[test]
    fn a_bond_with_a_tag_grows_step_by_step() {
        let data = br#"{"links": [
            {"id": "a", "type": "phy", "ethernet_mac_address": "02:00:00:00:00:01"},
            {"id": "b", "type": "phy", "ethernet_mac_address": "02:00:00:00:00:02"},
            {"id": "bond0", "type": "bond", "bond_links": ["a", "b"], "bond_mode": "802.3ad"},
            {"id": "v", "type": "vlan", "vlan_link": "bond0", "vlan_id": 9}],
            "networks": [{"id": "n", "type": "ipv4", "link": "v", "ip_address": "192.0.2.5/24"}]}"#;
        let plan = Plan { fixed: Some(network_data::parse(data).unwrap()), ..Plan::default() };
        let mut links = vec![link(2, "eth0", 1), link(3, "eth1", 2), link(4, "eth2", 3)];
        let off = Step::Serve { index: 4, how: How::Off };
        let bond = Bond { mode: 4, miimon: 100, hash: 0 };
        assert_eq!(next(&links, &plan, is_nic), [Step::Bond { name: "bond0".into(), bond }, off.clone()]);
        links.push(link(7, "bond0", 1));
        let steps = next(&links, &plan, is_nic);
        let join = |member, name: &str| Step::Join { member, bond: 7, name: name.into() };
        assert_eq!(steps[..2], [join(2, "eth0"), join(3, "eth1")]);
        assert!(steps.contains(&Step::Vlan { parent: 7, name: "bond0.9".into(), id: 9 }), "{steps:?}");
        (links[0].master, links[1].master) = (Some(7), Some(7));
        links.push(link(8, "bond0.9", 1));
        let steps = next(&links, &plan, is_nic);
        let served: Vec<u32> =
            steps.iter().map(|s| if let Step::Serve { index, .. } = s { *index } else { 0 }).collect();
        assert_eq!(served, [7, 8, 4]);
        let Step::Serve { how: How::Fixed(settings), .. } = &steps[1] else { panic!("{steps:?}") };
        assert_eq!(settings.addresses, [("192.0.2.5".parse().unwrap(), 24)]);
    }
}
