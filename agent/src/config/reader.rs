//! Typed reading of what was written. Remembers which options were asked for, so that those nobody asked for can be told. Pure.

use super::ConfigError;
use super::ini::Written;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Typed reading of the flat map; an empty text counts as not written.
pub struct Reader<'a> {
    written: &'a Written,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub fn new(written: &'a Written) -> Reader<'a> {
        Reader { written, asked: RefCell::default() }
    }
    /// Every option that was asked for so far.
    pub fn asked(&self) -> BTreeSet<&'static str> {
        self.asked.borrow().clone()
    }
    pub fn text(&self, name: &'static str) -> Option<String> {
        self.asked.borrow_mut().insert(name);
        self.written.get(name).map(|text| text.trim().to_string()).filter(|text| !text.is_empty())
    }
    pub fn read<T>(
        &self,
        name: &'static str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Value {
                name: name.to_string(),
                value: text.chars().take(80).collect(),
                wanted,
            }),
        }
    }
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        let value = self.read(name, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Some(true),
            "false" | "0" | "off" | "no" => Some(false),
            _ => None,
        })?;
        Ok(value.unwrap_or(default))
    }
    pub fn number(&self, name: &'static str, default: u32) -> Result<u32, ConfigError> {
        Ok(self.read(name, "a whole number", |text| text.parse().ok())?.unwrap_or(default))
    }
    pub fn port(&self, name: &'static str, default: u16) -> Result<u16, ConfigError> {
        Ok(self.read(name, "a port number", |text| text.parse().ok())?.unwrap_or(default))
    }
    pub fn seconds(&self, name: &'static str, default: u64) -> Result<Duration, ConfigError> {
        Ok(self.seconds_given(name)?.unwrap_or(Duration::from_secs(default)))
    }
    pub fn seconds_given(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        // A week is longer than any of these waits can mean; the bound keeps deadline sums from overflowing.
        let value = self.read(name, "a number of seconds up to 604800", |text| {
            text.parse::<f64>().ok().filter(|s| (0.0..=604_800.0).contains(s))
        })?;
        Ok(value.map(Duration::from_secs_f64))
    }
    pub fn pair(
        &self,
        first: &'static str,
        second: &'static str,
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (self.text(first), self.text(second)) {
            (Some(a), Some(b)) => Ok(Some((a.into(), b.into()))),
            (None, None) => Ok(None),
            _ => Err(ConfigError::Half(first, second)),
        }
    }
}
