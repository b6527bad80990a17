//! NTP packets as a client needs them that asks once (SNTP): a question out, an answer in and checked. Sockets, several
//! servers and patience are the caller's.
//!
//! Format of RFC 5905, section 7.3; which answers a client may believe, RFC 4330, section 5. The question tells a server
//! nothing about us: its only field besides the mode is a random number, which the answer must repeat.

use core::time::Duration;

/// UDP port of time servers.
pub const PORT: u16 = 123;
/// Bytes of a packet without extensions; an answer may be longer.
pub const LENGTH: usize = 48;

/// Version 4, mode 3 (client).
const QUESTION: u8 = 4 << 3 | 3;
const SERVER: u8 = 4;
/// Leap indicator of a server that does not know the time.
const ALARM: u8 = 3;
const STRATUM_MAX: u8 = 15;
/// RFC 5905's MAXDISP: root delay and dispersion from here on mean nothing. In seconds, times 2^16.
const DISPERSION_MAX: u32 = 16 << 16;
/// Seconds from 1900 to 1970.
const TO_UNIX: u64 = 2_208_988_800;

/// Why a datagram is no answer to our question, or one that must not be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NtpError {
    #[error("an ntp answer of {0} bytes is too short")]
    Short(usize),
    /// Also what a stranger sends who did not see the question. Whoever waits goes on waiting.
    #[error("it does not answer our question")]
    NotOurs,
    #[error("it is of mode {0}, not that of a server")]
    Mode(u8),
    #[error("it is of ntp version {0}")]
    Version(u8),
    /// A "kiss of death": the server asks to be left alone.
    #[error("the server refuses: {}", kiss_text(.0))]
    Refused([u8; 4]),
    #[error("the server does not know the time itself (stratum {stratum}, leap indicator {leap})")]
    Unsynchronised { stratum: u8, leap: u8 },
    #[error("the server's own error is 16 s or more")]
    Inaccurate,
    #[error("its times contradict each other")]
    Times,
}

fn kiss_text(code: &[u8; 4]) -> &'static str {
    match code {
        b"RATE" => "it is asked too often (RATE)",
        b"DENY" | b"RSTR" => "it serves others only (DENY, RSTR)",
        b"INIT" | b"STEP" => "it is still setting its own clock (INIT, STEP)",
        _ => "it gives a code that is not known",
    }
}

/// The question. `nonce` is random and fresh, not 0.
pub fn question(nonce: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = QUESTION;
    packet[40..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub stratum: u8,
    /// When the answer left the server, since 1970.
    pub sent: Duration,
    /// How long the server had the question.
    pub held: Duration,
}

impl Answer {
    /// Reads an answer to the question with this nonce and checks whether it may be believed.
    ///
    /// # Errors
    /// [`NtpError`]; [`NtpError::NotOurs`] and [`NtpError::Short`] say nothing about the server that was asked.
    pub fn parse(bytes: &[u8], nonce: u64) -> Result<Answer, NtpError> {
        let short = NtpError::Short(bytes.len());
        let packet: &[u8; LENGTH] = bytes.first_chunk().ok_or(short)?;
        let [first, stratum, ..] = *packet;
        let (leap, version, mode) = (first >> 6, (first >> 3) & 7, first & 7);
        if nonce == 0 || word(packet, 24) != nonce {
            return Err(NtpError::NotOurs);
        }
        if mode != SERVER {
            return Err(NtpError::Mode(mode));
        }
        if !(3..=4).contains(&version) {
            return Err(NtpError::Version(version));
        }
        if stratum == 0 {
            return Err(NtpError::Refused(half(packet, 12).to_be_bytes()));
        }
        if stratum > STRATUM_MAX || leap == ALARM {
            return Err(NtpError::Unsynchronised { stratum, leap });
        }
        if half(packet, 4) >= DISPERSION_MAX || half(packet, 8) >= DISPERSION_MAX {
            return Err(NtpError::Inaccurate);
        }
        let (received, sent) = (word(packet, 32), word(packet, 40));
        if received == 0 || sent == 0 {
            return Err(NtpError::Times);
        }
        // A server that waits for hours is broken; so is one that answers before it was asked.
        let held = unix(sent).checked_sub(unix(received)).filter(|held| held.as_secs() < 60);
        Ok(Answer { stratum, sent: unix(sent), held: held.ok_or(NtpError::Times)? })
    }

    /// The time since 1970 at the moment when the answer arrived, `elapsed` after the question had left: the way back is
    /// taken for half of what the server did not keep.
    pub fn on_arrival(&self, elapsed: Duration) -> Duration {
        self.sent.saturating_add(elapsed.saturating_sub(self.held) / 2)
    }
}

fn word(packet: &[u8; LENGTH], at: usize) -> u64 {
    packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn half(packet: &[u8; LENGTH], at: usize) -> u32 {
    packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// A timestamp as time since 1970. The seconds overflow in 2036: those with their first bit clear are after that (RFC 4330,
/// section 3).
fn unix(stamp: u64) -> Duration {
    let (seconds, fraction) = (stamp >> 32, stamp & 0xFFFF_FFFF);
    let seconds = if seconds & 0x8000_0000 == 0 { seconds | 1 << 32 } else { seconds };
    let nanos = (fraction * 1_000_000_000) >> 32;
    Duration::from_secs(seconds.saturating_sub(TO_UNIX)).saturating_add(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    const NONCE: u64 = 0x0102_0304_0506_0708;

    /// An answer of chrony's to a question with [`NONCE`]: stratum 2, received at 2026-11-22 23:42:54.25 UTC, kept for a
    /// 16th of a second.
    fn good() -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[..4].copy_from_slice(&[0x24, 2, 6, 0xE7]);
        packet[4..12].copy_from_slice(&[0, 0, 0x01, 0x80, 0, 0, 0x02, 0x10]);
        packet[12..16].copy_from_slice(&[192, 0, 2, 7]);
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        let received: u64 = (1_795_390_974 + TO_UNIX) << 32 | 0x4000_0000;
        packet[16..24].copy_from_slice(&(received - (7 << 32)).to_be_bytes());
        packet[32..40].copy_from_slice(&received.to_be_bytes());
        packet[40..].copy_from_slice(&(received + 0x1000_0000).to_be_bytes());
        packet
    }

    #[test]
    fn a_question_is_mode_3_with_nothing_but_its_nonce() {
        let packet = question(NONCE);
        assert_eq!((packet[0], &packet[40..]), (0x23, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert!(packet[1..40].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_good_answer_gives_the_time_at_its_arrival() {
        let answer = Answer::parse(&good(), NONCE).unwrap();
        assert_eq!((answer.stratum, answer.held), (2, Duration::from_micros(62_500)));
        assert_eq!(answer.sent, Duration::from_micros(1_795_390_974_312_500));
        // 162.5 ms there and back, of which the server kept 62.5: the way back took 50.
        let now = answer.on_arrival(Duration::from_micros(162_500));
        assert_eq!(now, Duration::from_micros(1_795_390_974_362_500));
        assert_eq!(answer.on_arrival(Duration::ZERO), answer.sent, "a clock of ours that ran too slowly");
        let mut longer = good().to_vec();
        longer.extend([0; 20]);
        assert_eq!(Answer::parse(&longer, NONCE).unwrap(), answer, "extensions are not looked at");
    }

    #[test]
    fn seconds_with_their_first_bit_clear_are_after_2036() {
        for (seconds, since_1970) in [
            (0x8000_0000, 0),
            (TO_UNIX, 0),
            (TO_UNIX + 5, 5),
            (0xFFFF_FFFF, 2_085_978_495),
            (0, 2_085_978_496),
        ] {
            assert_eq!(unix(seconds << 32), Duration::from_secs(since_1970), "{seconds:#x}");
        }
    }

    #[test]
    fn answers_that_must_not_be_believed_say_why() {
        type Spoil = fn(&mut [u8; LENGTH]);
        let cases: &[(Spoil, &str)] = &[
            (|p| p[24] ^= 1, "does not answer our question"),
            (|p| p[24..32].fill(0), "does not answer our question"),
            (|p| p[0] = 0x23, "mode 3"),
            (|p| p[0] = 0x25, "mode 5"),
            (|p| p[0] = 0x0C, "version 1"),
            (|p| p[0] = 0xE4, "leap indicator 3"),
            (|p| p[1] = 16, "stratum 16"),
            (|p| (p[1], p[12], p[13], p[14], p[15]) = (0, b'R', b'A', b'T', b'E'), "asked too often"),
            (|p| (p[1], p[12], p[13], p[14], p[15]) = (0, b'D', b'E', b'N', b'Y'), "others only"),
            (|p| (p[1], p[12], p[13], p[14], p[15]) = (0, 0xFF, 0, 1, 2), "not known"),
            (|p| p[5] = 16, "16 s or more"),
            (|p| p[8] = 0x80, "16 s or more"),
            (|p| p[40..].fill(0), "contradict"),
            (|p| p[32..40].fill(0), "contradict"),
            (|p| p[43] -= 1, "contradict"),
            (|p| p[43] += 61, "contradict"),
        ];
        for (number, (spoil, words)) in cases.iter().enumerate() {
            let mut packet = good();
            spoil(&mut packet);
            let said = Answer::parse(&packet, NONCE).unwrap_err().to_string();
            assert!(said.contains(words), "case {number}: {said}");
        }
        assert_eq!(Answer::parse(&good()[..47], NONCE), Err(NtpError::Short(47)));
        let mut zero = good();
        zero[24..32].fill(0);
        assert_eq!(Answer::parse(&zero, 0), Err(NtpError::NotOurs), "a nonce of 0 proves nothing");
    }

    proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), nonce: u64) {
            if let Ok(answer) = Answer::parse(&bytes, nonce) {
                answer.on_arrival(Duration::MAX);
            }
        }
        #[test]
        fn whatever_else_an_answer_of_ours_holds_nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 48)) {
            bytes[24..32].copy_from_slice(&NONCE.to_be_bytes());
            bytes[0] = 0x24;
            if let Ok(answer) = Answer::parse(&bytes, NONCE) {
                prop_assert!(answer.held < Duration::from_secs(60) && (1..=15).contains(&answer.stratum));
            }
        }
    }
}
