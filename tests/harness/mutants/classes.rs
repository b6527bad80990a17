//! Refusals sorted by their words: two that differ in numbers only are of one class.

use std::collections::BTreeMap;
use std::fmt;

/// How many refusals of each class there were, and the first image of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes(BTreeMap<String, Class>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    count: u64,
    first: u64,
}

impl Classes {
    /// Counts the refusal of image `seed`.
    pub fn add(&mut self, words: &str, seed: u64) {
        let class = self.0.entry(class(words)).or_insert(Class { count: 0, first: seed });
        class.count += 1;
        class.first = class.first.min(seed);
    }
}

/// A line for each class, the most frequent first: how many, an image of it, the words.
impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut classes: Vec<_> = self.0.iter().collect();
        classes.sort_by_key(|(_, class)| std::cmp::Reverse(class.count));
        for (words, Class { count, first }) in classes {
            writeln!(f, "{count:>7}  image {first:<8}  {words}")?;
        }
        Ok(())
    }
}

/// The words without what differs from image to image: numbers become N, lines are joined.
fn class(words: &str) -> String {
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut class = String::new();
    for word in lines.join("; ").split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        let (bare, rest) = word.split_at(end);
        match bare.starts_with(|c: char| c.is_ascii_digit()) {
            true => class.push('N'),
            false => class.push_str(bare),
        }
        class.push_str(rest);
    }
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_differ_in_numbers_are_of_one_class() {
        let mut classes = Classes::default();
        classes.add("qemu-img: reading at byte 512: no\n", 9);
        classes.add("qemu-img: reading at byte 0x1f00: no", 4);
        classes.add("disk 2 is full\n  here", 5);
        let text = classes.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("      2  image 4 "), "{text}");
        assert!(lines[0].ends_with("qemu-img: reading at byte N: no"), "{text}");
        assert!(lines[1].ends_with("disk N is full; here"), "{text}");
    }
}
