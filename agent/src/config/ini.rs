//! INI files as oslo.config reads them, into a flat map of option names and texts. Pure.

use super::ConfigError;
use std::collections::BTreeMap;

/// Option names (with underscores) and their texts. Options of other groups than `[DEFAULT]` carry the group: `mdns.use_mdns`.
pub type Written = BTreeMap<String, String>;

/// Adds what `text` says to what earlier sources said; the later one wins.
///
/// `[ssl]` is the old name of the group that `cert_file` and `key_file` of the command API were in.
///
/// # Errors
/// [`ConfigError::Line`] for a line that is neither a group, a comment, an option nor the continuation of one.
pub fn read(file: &str, text: &str, into: &mut Written) -> Result<(), ConfigError> {
    let mut group = "DEFAULT".to_owned();
    let mut last: Option<String> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if raw.starts_with([' ', '\t'])
            && let Some(value) = last.as_ref().and_then(|name| into.get_mut(name))
        {
            value.push(' ');
            value.push_str(line);
            continue;
        }
        last = None;
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            group = name.trim().to_owned();
            continue;
        }
        let Some((name, value)) = line.split_once(['=', ':']) else {
            return Err(ConfigError::Line {
                file: file.to_string(),
                line: index.saturating_add(1),
                text: line.chars().take(80).collect(),
            });
        };
        let name = option(&group, &name.trim().replace('-', "_"));
        into.insert(name.clone(), unquoted(value.trim()).to_string());
        last = Some(name);
    }
    Ok(())
}

fn option(group: &str, name: &str) -> String {
    match (group, name) {
        ("DEFAULT", name) => name.to_owned(),
        ("ssl", "cert_file") => "tls_cert_file".to_owned(),
        ("ssl", "key_file") => "tls_key_file".to_owned(),
        (group, name) => format!("{group}.{name}"),
    }
}

fn unquoted(text: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_comments_quotes_and_continuations_are_read() {
        let text =
            "a = 1\n# no\n; no\n[DEFAULT]\nb-c: 'two'\nlist = x,\n  y\n[mdns]\na = 9\n[ssl]\ncert_file=/c\n";
        let mut found = Written::new();
        read("a.conf", text, &mut found).unwrap();
        let shown: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["a=1", "b_c=two", "list=x, y", "mdns.a=9", "tls_cert_file=/c"]);
    }
}
