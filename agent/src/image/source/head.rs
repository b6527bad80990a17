//! The head of an image server's answer: status, headers, how the body is delimited. Pure; heads are parsed by `httparse`.

use ferric_common::limits;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    /// In a chunk of which so many bytes are left.
    Chunk(u64),
    /// Between two chunks; whether the end of the last one's data is to be read first.
    NextChunk {
        after_data: bool,
    },
    UntilClose,
    Done,
}

/// What tells two versions of a file apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Validator {
    header: HeaderName,
    value: HeaderValue,
}

impl Validator {
    /// What If-Range says.
    pub fn text(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }
    /// Whether an answer is about the same version; `None` where it does not say.
    pub fn is_still(&self, headers: &HeaderMap) -> Option<bool> {
        headers.get(&self.header).map(|value| value == self.value)
    }
}

/// The head and its minor version.
///
/// # Errors
/// What makes it none, in words.
pub fn parse(bytes: &[u8]) -> Result<(Head, u8), String> {
    let mut fields = [httparse::EMPTY_HEADER; limits::HEADERS_COUNT];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("the head of the answer is cut short".into()),
        Err(e) => return Err(format!("the answer is no HTTP ({e})")),
    }
    let mut headers = HeaderMap::new();
    for field in answer.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(format!("the answer's header '{}' is not usable", field.name));
        };
        headers.append(name, value);
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("the answer's status is no number from 100 to 999")?;
    Ok((Head { status, headers }, answer.version.unwrap_or(0)))
}

/// Whether one of a header's words is `wanted`.
pub fn tokens(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name);
    let mut words = values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

/// How the body is delimited (RFC 9112, 6.3). What is said twice, or both ways, is refused: two readers would not agree.
///
/// # Errors
/// What cannot be used, in words.
pub fn framing(head: &Head) -> Result<Framing, String> {
    if head.status.is_informational() || matches!(head.status.as_u16(), 204 | 304) {
        return Ok(Framing::Done);
    }
    let lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().collect::<Vec<_>>();
    let coded = head.headers.contains_key(header::TRANSFER_ENCODING);
    match (lengths.as_slice(), coded) {
        ([], false) => Ok(Framing::UntilClose),
        ([], true) if tokens(&head.headers, header::TRANSFER_ENCODING, "chunked") => {
            Ok(Framing::NextChunk { after_data: false })
        }
        ([length], false) => {
            let digits =
                length.to_str().ok().map(str::trim).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            length.map(Framing::Length).ok_or_else(|| "the answer's Content-Length is no number".to_string())
        }
        (_, true) => Err("the answer's Transfer-Encoding is not usable".into()),
        (_, false) => Err("the answer has several Content-Lengths".into()),
    }
}

/// Bytes of a chunk, from the line before it without its end (RFC 9112, 7.1); extensions are ignored.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let digits = std::str::from_utf8(digits).ok().filter(|text| !text.is_empty())?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// The file's version: its ETag where that is a strong one, else its date.
pub fn validator(headers: &HeaderMap) -> Option<Validator> {
    let said = |header: HeaderName| {
        let value = headers.get(&header).filter(|value| value.to_str().is_ok())?.clone();
        Some(Validator { header, value })
    };
    let strong = said(header::ETAG).filter(|tag| !tag.text().starts_with("W/"));
    strong.or_else(|| said(header::LAST_MODIFIED))
}

/// The body's length, where it is said.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// `bytes START-END/TOTAL` → (START, TOTAL).
pub fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end, total): (u64, u64, u64) = (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    (start <= end && end < total).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Framing, String> {
        parse(text.as_bytes()).and_then(|(head, _)| framing(&head))
    }

    #[test]
    fn a_body_is_delimited_in_one_way_only() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Ok(Framing::Length(5)));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";
        assert_eq!(head(chunked), Ok(Framing::NextChunk { after_data: false }));
        assert_eq!(head("HTTP/1.0 200 OK\r\n\r\n"), Ok(Framing::UntilClose));
        assert_eq!(head("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), Ok(Framing::Done));
        for bad in [
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 99999999999999999999999",
            "Transfer-Encoding: gzip",
        ] {
            assert!(head(&format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_head_that_is_none_is_refused() {
        for bad in ["\0\0\0\0\r\n\r\n", "HTTP/1.1 xx\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"] {
            assert!(head(bad).is_err(), "{bad:?}");
        }
        let many = "A: b\r\n".repeat(limits::HEADERS_COUNT + 1);
        assert!(head(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
    }
}
