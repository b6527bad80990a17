//! JSON from strangers: bounded depth, no duplicate keys, bounded members.

use ferric_common::limits::JSON_DEPTH;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;

/// Members of all arrays and objects of one document together.
const MEMBERS: usize = 100_000;

/// Parses a document.
///
/// # Errors
/// A sentence: not JSON, deeper than 25, a key given twice, or too many members.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let members = Cell::new(0);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0, members: &members }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| e.to_string())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    members: &'a Cell<usize>,
}

impl Strict<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= JSON_DEPTH {
            return Err(E::custom(format!("JSON is nested deeper than {JSON_DEPTH}")));
        }
        Ok(Strict { depth: self.depth + 1, ..self })
    }
    fn count<E: Error>(self) -> Result<(), E> {
        self.members.set(self.members.get() + 1);
        match self.members.get() {
            0..=MEMBERS => Ok(()),
            _ => Err(E::custom(format!("JSON has more than {MEMBERS} members"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_string()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            self.count()?;
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<Key>()? {
            self.count()?;
            let value = access.next_value_seed(inner)?;
            if map.insert(key.0.clone(), value).is_some() {
                let shown: String = key.0.chars().take(64).collect();
                return Err(A::Error::custom(format!("the key '{shown}' is given twice")));
            }
        }
        Ok(Value::Object(map))
    }
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_may_not_send() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(25).as_bytes()).is_ok());
        let many = format!("[{}1]", "1,".repeat(100_000));
        for (text, words) in [
            (deep(26), "nested deeper than 25"),
            (r#"{"a": 1, "a": 2}"#.to_string(), "'a' is given twice"),
            (r#"{"a": {"b": 1, "b": 1}}"#.to_string(), "'b' is given twice"),
            ("{".to_string(), "EOF"),
            ("{} x".to_string(), "trailing"),
            (many, "more than 100000"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let plain = r#"{"a": [1, -2, 1.5, null, true, "x"], "b": {}}"#;
        assert_eq!(parse(plain.as_bytes()).unwrap(), serde_json::from_str::<Value>(plain).unwrap());
    }
}
