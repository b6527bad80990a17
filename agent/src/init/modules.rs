//! Which kernel modules a device asks for, and in which order they load: modules.dep, modules.alias and modules.softdep,
//! as depmod writes them (kmod's modules.dep(5)). Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The index of one kernel's modules.
#[derive(Debug, Default)]
pub struct Index {
    modules: BTreeMap<String, Entry>,
    /// Patterns by what stands before their first colon (`pci`, `usb`), as nearly all have one; those without under "".
    aliases: BTreeMap<String, Vec<(String, String)>>,
    soft: BTreeMap<String, Soft>,
    refused: BTreeSet<String>,
    parameters: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Entry {
    path: String,
    needs: Vec<String>,
}

#[derive(Debug, Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// One module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: String,
    /// Relative to the kernel's folder of modules.
    pub path: String,
    pub parameters: String,
    /// Positions in the plan, all lower than its own, that must have been tried before.
    pub after: Vec<usize>,
}

impl Index {
    /// Reads the three files and, of the kernel command line, `modprobe.blacklist=a,b` and `module.parameter=value`. Lines that are not understood are skipped.
    pub fn parse(dep: &str, alias: &str, softdep: &str, command_line: &str) -> Index {
        let mut index = Index::default();
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(module_name).collect();
            index.modules.insert(module_name(path), Entry { path: path.trim().to_owned(), needs });
        }
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                let entry = (pattern.to_owned(), module_name(module));
                index.aliases.entry(bus(pattern).to_owned()).or_default().push(entry);
            }
        }
        for line in softdep.lines() {
            index.read_soft(line);
        }
        for word in command_line.split_whitespace() {
            index.read_word(word);
        }
        index
    }

    fn read_soft(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { return };
        let soft = self.soft.entry(module_name(module)).or_default();
        let mut after = false;
        for word in words {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                _ if after => soft.after.push(word.to_owned()),
                _ => soft.before.push(word.to_owned()),
            }
        }
    }

    fn read_word(&mut self, word: &str) {
        let Some((key, value)) = word.split_once('=') else { return };
        if key == "modprobe.blacklist" {
            self.refused.extend(value.split(',').map(module_name));
        } else if let Some((module, parameter)) = key.split_once('.') {
            let all = self.parameters.entry(module_name(module)).or_default();
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&format!("{parameter}={value}"));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The modules that a device's modalias, a module's alias or a module's name stands for, without those refused.
    pub fn resolve(&self, wanted: &str) -> Vec<String> {
        let own = module_name(wanted);
        if self.modules.contains_key(&own) && !wanted.contains(':') {
            return vec![own];
        }
        let mut found = Vec::new();
        let buckets = [bus(wanted), ""];
        let same = buckets.iter().skip(usize::from(buckets.first() == Some(&"")));
        for (pattern, module) in same.filter_map(|bus| self.aliases.get(*bus)).flatten() {
            if !found.contains(module) && !self.refused.contains(module) && matches(pattern, wanted) {
                found.push(module.clone());
            }
        }
        found
    }

    /// These modules and all they need that is not in `done`, each after what it needs.
    pub fn plan(&self, wanted: impl IntoIterator<Item = String>, done: &BTreeSet<String>) -> Vec<Load> {
        let mut plan = Plan { index: self, done, loads: Vec::new(), places: BTreeMap::new() };
        for name in wanted {
            plan.add(&name);
        }
        plan.loads
    }
}

struct Plan<'i> {
    index: &'i Index,
    done: &'i BTreeSet<String>,
    loads: Vec<Load>,
    /// `None` while its needs are being placed: a circle ends there.
    places: BTreeMap<String, Option<usize>>,
}

impl Plan<'_> {
    /// Places a module behind its needs. Depth is bounded by the number of modules: each is entered once.
    fn add(&mut self, name: &str) -> Option<usize> {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let entry = self.index.modules.get(name)?;
        if self.done.contains(name) {
            return None;
        }
        self.places.insert(name.to_owned(), None);
        let soft = self.index.soft.get(name);
        let before = soft.map(|soft| soft.before.as_slice()).unwrap_or_default();
        let wanted: Vec<String> = entry
            .needs
            .iter()
            .cloned()
            .chain(before.iter().flat_map(|soft| self.index.resolve(soft)))
            .collect();
        let mut after: Vec<usize> = wanted.iter().filter_map(|need| self.add(need)).collect();
        after.sort_unstable();
        after.dedup();
        let place = self.loads.len();
        self.loads.push(Load {
            name: name.to_owned(),
            path: entry.path.clone(),
            parameters: self.index.parameters.get(name).cloned().unwrap_or_default(),
            after,
        });
        self.places.insert(name.to_owned(), Some(place));
        for follower in soft.map(|soft| soft.after.as_slice()).unwrap_or_default() {
            for module in self.index.resolve(follower) {
                self.add(&module);
            }
        }
        Some(place)
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`: the kernel does not tell `-` from `_`.
pub fn module_name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// What stands before the first colon, unless a wildcard does.
fn bus(pattern: &str) -> &str {
    match pattern.split_once(':') {
        Some((bus, _)) if !bus.contains(['*', '?', '[']) => bus,
        _ => "",
    }
}

/// Shell wildcards as depmod uses them: `*`, `?`, `[0-9a]`. Time is bounded by the product of both lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (None, None) => return true,
            (Some(b'?'), Some(_)) => Some(p + 1),
            (Some(b'['), Some(byte)) => in_set(pattern, p, *byte),
            (Some(want), Some(byte)) if want == byte => Some(p + 1),
            _ => None,
        };
        match (step, retry) {
            (Some(next), _) => (p, t) = (next, t + 1),
            // The last star takes one byte more.
            (None, Some((after_star, from))) if from < text.len() => {
                retry = Some((after_star, from + 1));
                (p, t) = (after_star, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Where the pattern goes on behind the set that opens at `open`, if `byte` is in it.
fn in_set(pattern: &[u8], open: usize, byte: u8) -> Option<usize> {
    let set = pattern.get(open + 1..)?;
    let length = set.iter().position(|b| *b == b']')?;
    let mut inside = set.get(..length)?;
    while let Some((low, rest)) = inside.split_first() {
        let (high, rest) = match rest {
            [b'-', high, rest @ ..] => (high, rest),
            _ => (low, rest),
        };
        if (*low..=*high).contains(&byte) {
            return Some(open + length + 2);
        }
        inside = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEP: &str = "kernel/drivers/virtio/virtio.ko:\n\
        kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/net/net_failover.ko:\n\
        kernel/lib/libcrc32c.ko:\nkernel/crypto/crc32c-generic.ko.xz:\n\
        kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\nkernel/c.ko: kernel/missing.ko\n";
    const ALIAS: &str = "# aliases\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000001v* virtio_net\n\
        alias acpi*:PNP0A03:* a\nalias crypto-crc32c crc32c_generic\nalias pci:v*d*sv*sd*bc01sc08i02* c\n";
    const SOFT: &str = "softdep libcrc32c pre: crypto-crc32c\nsoftdep virtio_net post: c\n";

    fn index(command_line: &str) -> Index {
        Index::parse(DEP, ALIAS, SOFT, command_line)
    }

    fn order(index: &Index, wanted: &[&str], done: &[&str]) -> Vec<String> {
        let done = done.iter().map(|name| (*name).to_owned()).collect();
        let plan = index.plan(wanted.iter().flat_map(|w| index.resolve(w)), &done);
        for (place, load) in plan.iter().enumerate() {
            assert!(load.after.iter().all(|before| *before < place), "{plan:?}");
        }
        plan.into_iter().map(|load| load.name).collect()
    }

    #[test]
    fn a_modalias_brings_its_module_after_all_it_needs() {
        let wanted = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00";
        assert_eq!(order(&index(""), &[wanted], &[]), ["virtio", "virtio_ring", "virtio_pci"]);
        assert_eq!(order(&index(""), &[wanted], &["virtio", "virtio_ring"]), ["virtio_pci"]);
        assert_eq!(order(&index("modprobe.blacklist=x,virtio-pci"), &[wanted], &[]), [] as [&str; 0]);
        assert_eq!(order(&index(""), &["pci:v00008086d0sv0sd0bc0sc0i0", "nothing"], &[]), [] as [&str; 0]);
    }

    #[test]
    fn soft_dependencies_go_before_and_after() {
        assert_eq!(order(&index(""), &["libcrc32c"], &[]), ["crc32c_generic", "libcrc32c"]);
        assert_eq!(
            order(&index(""), &["virtio:d00000001v00001AF4"], &["virtio"]),
            ["net_failover", "virtio_net", "c"]
        );
    }

    #[test]
    fn circles_and_gaps_end() {
        assert_eq!(order(&index(""), &["acpi0:PNP0A03:x"], &[]), ["b", "a"]);
        assert_eq!(order(&index(""), &["c"], &[]), ["c"]);
    }

    #[test]
    fn parameters_come_from_the_command_line() {
        let index = index("virtio-net.napi_tx=0 quiet virtio_net.gso=1 a=b");
        let plan = index.plan(["virtio_net".to_owned()], &BTreeSet::new());
        let net = plan.iter().find(|load| load.name == "virtio_net").unwrap();
        assert_eq!(net.parameters, "napi_tx=0 gso=1");
    }

    #[test]
    fn wildcards_match_as_a_shells() {
        for (pattern, text, yes) in [
            ("", "", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdf", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("usb:v*p*d*dc*dsc*dp*ic03isc*ip*in*", "usb:v1p2d3dc0dsc0dp0ic03isc01ip01in00", true),
            ("d[0-9a]x", "dax", true),
            ("d[0-9a]x", "d5x", true),
            ("d[0-9a]x", "dbx", false),
            ("d[", "d[", false),
            ("*b", "abab", true),
            ("abc", "ab", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_and_text_end(pattern in "[a*?\\[\\]-]{0,12}", text in "[ab\\[]{0,12}") {
            let _ = matches(&pattern, &text);
        }
    }
}
