//! Answers of an image server: heads and bodies are the same however their bytes come, and what a plain reading of them says.
#![no_main]

use ferric_fuzz::image::head::{self, Framing, Head};
use ferric_fuzz::image::message::{Broken, Messages, Wire};
use ferric_fuzz::{Cuts, Input};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let seed = input.number();
    let bytes = input.0;
    let whole = told(bytes, &mut std::iter::repeat(usize::MAX));
    let parts = told(bytes, &mut Cuts(seed));
    assert_eq!(whole, parts);
    let first = whole.into_iter().next();
    assert_eq!(plainly(bytes), first.and_then(|answer| Some((answer.body?, answer.error.is_none()))));
});

/// What became of one answer.
#[derive(Debug, PartialEq)]
struct Answer {
    head: Option<String>,
    body: Option<Vec<u8>>,
    error: Option<Broken>,
}

/// A connection on which pieces come.
struct Pieces<'a> {
    bytes: &'a [u8],
    cuts: &'a mut dyn Iterator<Item = usize>,
}

impl Wire for Pieces<'_> {
    fn receive(&mut self, place: &mut [u8], left: u64) -> Result<usize, Broken> {
        assert!(!place.is_empty() && left > 0);
        let count = self.cuts.next().unwrap_or(1).min(place.len()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(count);
        place[..count].copy_from_slice(piece);
        self.bytes = rest;
        Ok(count)
    }
}

/// All answers up to the first that is wrong.
fn told(bytes: &[u8], cuts: &mut dyn Iterator<Item = usize>) -> Vec<Answer> {
    let (mut wire, mut messages) = (Pieces { bytes, cuts }, Messages::default());
    let (mut answers, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let head = match messages.answer(&mut wire) {
            Ok(head) => head,
            Err(error) => {
                answers.push(Answer { head: None, body: None, error: Some(error) });
                return answers;
            }
        };
        let (mut body, mut error) = (Vec::new(), None);
        loop {
            let most = wire.cuts.next().unwrap_or(1).min(room.len());
            match messages.read(&mut wire, &mut room[..most]) {
                Ok(0) => break,
                Ok(count) => body.extend_from_slice(&room[..count]),
                Err(broken) => {
                    error = Some(broken);
                    break;
                }
            }
        }
        let ended = error.is_some();
        answers.push(Answer { head: Some(format!("{head:?}")), body: Some(body), error });
        if ended {
            return answers;
        }
    }
}

/// The body of the first answer and whether it is whole, read from all bytes at once.
fn plainly(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (head, rest) = final_head(bytes)?;
    match head::framing(&head).ok()? {
        Framing::Done => Some((Vec::new(), true)),
        Framing::UntilClose => Some((rest.to_vec(), true)),
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Some((rest[..length.min(rest.len())].to_vec(), length <= rest.len()))
        }
        Framing::NextChunk { .. } => {
            let mut body = Vec::new();
            let is_whole = chunks(rest, &mut body).is_some();
            Some((body, is_whole))
        }
        Framing::Chunk(_) => None,
    }
}

fn final_head(mut bytes: &[u8]) -> Option<(Head, &[u8])> {
    for _ in 0..=16 {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let (head, rest) = bytes.split_at(end);
        let (head, _) = head::parse(head).ok().filter(|_| end <= 64 << 10)?;
        if !head.status.is_informational() {
            return Some((head, rest));
        }
        bytes = rest;
    }
    None
}

fn chunks(mut rest: &[u8], body: &mut Vec<u8>) -> Option<()> {
    loop {
        let size = head::chunk_size(line(&mut rest)?)?;
        if size == 0 {
            let trailers = (0..100).map_while(|_| line(&mut rest));
            return trailers.filter(|line| line.is_empty()).next().map(|_| ());
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size..)?;
        line(&mut rest).filter(|line| line.is_empty())?;
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n').filter(|end| *end <= 1024)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}
