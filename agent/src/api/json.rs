//! Reads a request's JSON within bounds: depth, members, no duplicate keys.

use ferric_common::limits;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;
use std::io::Read;

/// A node travels inside a command's parameters, three levels below the top.
const DEPTH: usize = limits::JSON_DEPTH + 3;
/// Members of one array or object.
const MEMBERS: usize = 100_000;

/// Parses a whole body as it comes: of a large one no second copy is held.
///
/// # Errors
/// Words for the sender, with line and column where known.
pub fn parse(body: impl Read) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_reader(body);
    let value = Bounded { depth: 0 }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Bounded {
    depth: usize,
}

impl Bounded {
    fn deeper<E: serde::de::Error>(self) -> Result<Bounded, E> {
        match self.depth < DEPTH {
            true => Ok(Bounded { depth: self.depth + 1 }),
            false => Err(E::custom(format_args!("more than {DEPTH} levels of nesting"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(inner)? {
            if list.len() >= MEMBERS {
                return Err(serde::de::Error::custom(format_args!(
                    "an array with more than {MEMBERS} members"
                )));
            }
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.len() >= MEMBERS {
                return Err(serde::de::Error::custom(format_args!(
                    "an object with more than {MEMBERS} members"
                )));
            }
            if map.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(serde::de::Error::custom(format_args!("the key '{key}' is there twice")));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_bounds_is_read_as_it_is() {
        let text = r#"{"a": [1, -2, 0.5, "x", null, true], "b": {"c": {}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_not_is_refused_in_words() {
        for (body, words) in [
            (r#"{"name": "#.to_string(), "EOF while parsing"),
            (r#"{"a": 1, "a": 2}"#.to_string(), "the key 'a' is there twice"),
            ("[".repeat(40) + &"]".repeat(40), "more than 28 levels of nesting"),
            ("[1] x".to_string(), "trailing characters"),
            (String::new(), "EOF while parsing"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
